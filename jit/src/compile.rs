//! A compiler: from a request to position-independent machine code.

use crate::constants;
use crate::dump::Dump;
use crate::frame;
use crate::lower;
use crate::region::{Beyond, Bytes, Region, Request, call_sites};
use crate::vm::{CallSite, STATE_BIAS, Stubs};
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{AbiParam, Function, InstBuilder, Opcode, Signature, UserFuncName, Value};
use cranelift_codegen::isa::{CallConv, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_codegen::{CodegenError, Context, control::ControlPlane};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use egret_isa::Features;
use egret_isa::insn::{Ctx, Insn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Why nothing was compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// Cranelift does not know this host.
    #[error("Cranelift cannot compile for this host: {0}")]
    Host(String),
    /// The region has no instruction that can be compiled.
    #[error("nothing to compile")]
    Empty,
    /// What was to be made one is too large for that.
    #[error("nothing is gained")]
    Pointless,
    /// The code's frame is larger than the one there is, or unlike others.
    #[error("the code does not fit into the frame that all share")]
    Frame,
    /// Cranelift refused the code.
    #[error("Cranelift: {0}")]
    Codegen(String),
}

/// The instructions that are calls with their offsets, the code, and where the entries' code begins in it.
type Made = (Vec<(u16, Insn)>, Vec<u8>, Vec<u32>);

/// How hard to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Run Cranelift's optimizer.
    pub optimize: bool,
    /// Check Cranelift's input and its register allocation.
    pub verify: bool,
    /// All regions use one stack frame: see [`crate::frame`]. Only for hosts where that is possible.
    pub share_frame: bool,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning { optimize: true, verify: cfg!(debug_assertions), share_frame: frame::POSSIBLE }
    }
}

/// A compiled region.
pub struct Compiled {
    /// Physical address of the page.
    pub page: u64,
    /// Context.
    pub ctx: Ctx,
    /// What the CPU has; see [`Request::features`].
    pub features: Features,
    /// See [`Request::base`].
    pub base: Option<u64>,
    /// Offset of each entry.
    pub entries: Vec<u16>,
    /// See [`Region::outs`].
    pub outs: Vec<u16>,
    /// Machine code, position-independent.
    pub code: Vec<u8>,
    /// Where in it each entry's begins.
    pub starts: Vec<u32>,
    /// What it calls.
    pub calls: Box<[CallSite]>,
    /// Where in the page those instructions are.
    pub call_offsets: Vec<u16>,
    /// The guest bytes it was made from.
    pub bytes: Bytes,
    /// The page they were read from.
    pub source: Box<[u8; crate::region::PAGE]>,
    /// What else it was made from, if an instruction reaches into the next page.
    pub beyond: Option<Beyond>,
    /// Guest instructions.
    pub insns: usize,
    /// Time it took.
    pub time: Duration,
}

/// Compiles regions, one at a time. Keeps what can be used again.
pub struct Compiler {
    isa: OwnedTargetIsa,
    /// For what the optimizer has seen, or need not see.
    quick: OwnedTargetIsa,
    optimize: bool,
    context: Context,
    builder: FunctionBuilderContext,
    share_frame: bool,
    /// Bytes of the frame.
    room: u32,
    dump: Option<Dump>,
}

fn isa(tuning: Tuning) -> Result<OwnedTargetIsa, CompileError> {
    let host = |e: &dyn std::fmt::Display| CompileError::Host(e.to_string());
    let mut flags = settings::builder();
    let on = |b: bool| if b { "true" } else { "false" };
    for (name, value) in [
        ("opt_level", if tuning.optimize { "speed" } else { "none" }),
        ("enable_verifier", on(tuning.verify)),
        ("regalloc_checker", on(tuning.verify)),
        ("unwind_info", "false"),
        ("enable_probestack", "false"),
        // Tail calls on x86-64 need it.
        ("preserve_frame_pointers", "true"),
        // There is no secret in guest memory that the guest could not read anyway.
        ("enable_heap_access_spectre_mitigation", "false"),
        ("enable_table_access_spectre_mitigation", "false"),
    ] {
        flags.set(name, value).map_err(|e| host(&e))?;
    }
    let isa = cranelift_native::builder().map_err(|e| host(&e))?;
    isa.finish(settings::Flags::new(flags)).map_err(|e| host(&e))
}

impl Compiler {
    /// A compiler for this host.
    pub fn new(tuning: Tuning) -> Result<Compiler, CompileError> {
        let quick = isa(Tuning { optimize: false, ..tuning })?;
        Ok(Compiler {
            isa: isa(tuning)?,
            quick,
            optimize: tuning.optimize,
            context: Context::new(),
            builder: FunctionBuilderContext::new(),
            share_frame: tuning.share_frame && frame::POSSIBLE,
            room: frame::FRAME,
            dump: Dump::from_env(),
        })
    }

    /// Compiles what a request reaches.
    pub fn compile(&mut self, request: Request) -> Result<Compiled, CompileError> {
        self.make(request, false)
    }

    /// The same without the optimizer: in 70 % of the time, code that runs up to 10 % slower.
    pub fn compile_quickly(&mut self, request: Request) -> Result<Compiled, CompileError> {
        self.make(request, true)
    }

    fn make(&mut self, request: Request, quick: bool) -> Result<Compiled, CompileError> {
        let start = Instant::now();
        let region = Region::find(&request).ok_or(CompileError::Empty)?;
        if request.merge.is_some_and(|n| region.insns() <= n) {
            return Err(CompileError::Pointless);
        }
        // The guest chooses what is compiled: what panics here, be it Cranelift, must cost no more than the region.
        let outcome = catch_unwind(AssertUnwindSafe(|| match self.code_of(request.page, &region, quick, true) {
            // What is held back from memory may take more room than there is.
            Err(CompileError::Frame) => self.code_of(request.page, &region, quick, false),
            other => other,
        }));
        let (calls, code, starts) = outcome.unwrap_or_else(|_| {
            (self.context, self.builder) = (Context::new(), FunctionBuilderContext::new());
            Err(CompileError::Codegen("panic".to_owned()))
        })?;
        let reached = region.bytes_beyond();
        let beyond = request.beyond.filter(|_| reached > 0).map(|mut b| {
            b.bytes.truncate(reached);
            b
        });
        Ok(Compiled {
            page: request.page,
            ctx: request.ctx,
            features: request.features,
            base: request.base,
            bytes: region.bytes(),
            insns: region.insns(),
            outs: region.outs(),
            entries: region.entries,
            code,
            starts,
            calls: call_sites(&calls.iter().map(|(_, i)| *i).collect::<Vec<_>>()),
            call_offsets: calls.into_iter().map(|(at, _)| at).collect(),
            source: request.bytes,
            beyond,
            time: start.elapsed(),
        })
    }

    /// Compiles a region; `hold` as for [`lower::lower`].
    fn code_of(&mut self, page: u64, region: &Region, quick: bool, hold: bool) -> Result<Made, CompileError> {
        let calls = self.lower(region, hold);
        let clif = self.dump.as_ref().map(|_| self.context.func.display().to_string());
        self.context.set_disasm(clif.is_some());
        let mut code = self.finish(self.optimize && !quick)?;
        let starts = self.starts(&mut code, region.entries.len())?;
        let clif = clif.map(|c| format!("{c}\n; after the optimizer\n{}", self.context.func.display()));
        if let (Some(dump), Some(clif)) = (&self.dump, clif) {
            let code = self.context.compiled_code().and_then(|c| c.vcode.clone()).unwrap_or_default();
            dump.region(page, region, &calls, &clif, &code);
        }
        Ok((calls, code, starts))
    }

    /// The CLIF of a request's region, as text.
    pub fn clif(&mut self, request: &Request) -> Result<String, CompileError> {
        let region = Region::find(request).ok_or(CompileError::Empty)?;
        self.lower(&region, true);
        Ok(self.context.func.display().to_string())
    }

    /// The machine code of a request's region, as text.
    pub fn disassembly(&mut self, request: &Request) -> Result<String, CompileError> {
        let region = Region::find(request).ok_or(CompileError::Empty)?;
        self.lower(&region, true);
        self.context.set_disasm(true);
        let result = self.generate(self.optimize);
        self.context.set_disasm(false);
        result?;
        Ok(self.context.compiled_code().and_then(|c| c.vcode.clone()).unwrap_or_default())
    }

    /// All that decides which code comes of a request, as text.
    #[must_use]
    pub fn settings(&self) -> String {
        let host: Vec<String> = self.isa.isa_flags().iter().map(ToString::to_string).collect();
        format!("{} {} {} {}", self.isa.triple(), self.isa.flags(), host.join(" "), self.share_frame)
    }

    fn lower(&mut self, region: &Region, hold: bool) -> Vec<(u16, Insn)> {
        self.context.clear();
        self.context.func = Function::with_name_signature(UserFuncName::default(), lower::region_signature());
        let builder = FunctionBuilder::new(&mut self.context.func, &mut self.builder);
        lower::lower(builder, region, self.isa.frontend_config(), hold)
    }

    /// Compiles the function in the context.
    fn finish(&mut self, optimize: bool) -> Result<Vec<u8>, CompileError> {
        self.generate(optimize)?;
        let code = self.context.compiled_code().filter(|c| c.buffer.relocs().is_empty());
        let code = code.ok_or_else(|| CompileError::Codegen("the code needs relocations".to_owned()))?;
        Ok(code.code_buffer().to_vec())
    }

    fn generate(&mut self, optimize: bool) -> Result<(), CompileError> {
        let failed = |e: CodegenError| CompileError::Codegen(format!("{e:?}"));
        let control = &mut ControlPlane::default();
        if optimize {
            self.context.optimize(&*self.isa, control).map_err(failed)?;
            constants::localize(&mut self.context.func);
        }
        self.context.compile(&*self.quick, control).map(|_| ()).map_err(|e| failed(e.inner))
    }

    /// Compiles a function of one block, given its signature and what is in the block.
    fn small(&mut self, signature: Signature, body: impl FnOnce(&mut FunctionBuilder<'_>, &[Value])) -> Result<Vec<u8>, CompileError> {
        self.context.clear();
        self.context.func = Function::with_name_signature(UserFuncName::default(), signature);
        let mut b = FunctionBuilder::new(&mut self.context.func, &mut self.builder);
        let block = b.create_block();
        b.append_block_params_for_function_params(block);
        b.switch_to_block(block);
        b.seal_block(block);
        let arguments = b.block_params(block).to_vec();
        body(&mut b, &arguments);
        b.finalize(self.isa.frontend_config());
        self.finish(false)
    }

    /// A stub: `preserve_all` to the outside, calls a Rust helper at `address`.
    pub fn stub(&mut self, address: u64) -> Result<Vec<u8>, CompileError> {
        let mut helper = Signature::new(self.isa.default_call_conv());
        helper.params.extend([I64; 4].map(AbiParam::new));
        self.small(lower::stub_signature(), |b, arguments| {
            let helper = b.import_signature(helper);
            let state = b.ins().iadd_imm_s(arguments[0], -STATE_BIAS);
            let target = b.ins().iconst(I64, address as i64);
            b.ins().call_indirect(helper, target, &[&[state], &arguments[1..]].concat());
            b.ins().return_(&[]);
        })
    }

    /// Where the entries' code begins in the function that was compiled last.
    fn starts(&self, code: &mut [u8], entries: usize) -> Result<Vec<u32>, CompileError> {
        if !self.share_frame {
            return Ok(vec![0; entries]);
        }
        let func = &self.context.func;
        let tail = |b| func.layout.last_inst(b).is_some_and(|i| func.dfg.insts[i].opcode() == Opcode::ReturnCallIndirect);
        let tails = func.layout.blocks().filter(|b| tail(*b)).count();
        frame::share(code, tails, entries, self.room).ok_or(CompileError::Frame)
    }

    /// The way in from Rust: `extern "C" fn(state, entry, code) -> exit code`. `frame` is the address of [`frame::ENTER`].
    pub fn trampoline(&mut self, frame: u64) -> Result<Vec<u8>, CompileError> {
        let mut signature = Signature::new(self.isa.default_call_conv());
        signature.params.extend([I64; 3].map(AbiParam::new));
        signature.returns.push(AbiParam::new(I64));
        let share_frame = self.share_frame;
        self.small(signature, |b, arguments| {
            let state = b.ins().iadd_imm_s(arguments[0], STATE_BIAS);
            let call = if share_frame {
                // Nothing is kept over such a call.
                let mut enter = Signature::new(CallConv::Winch);
                enter.params.extend([I64; 3].map(AbiParam::new));
                enter.returns.push(AbiParam::new(I64));
                let enter = b.import_signature(enter);
                let frame = b.ins().iconst(I64, frame as i64);
                b.ins().call_indirect(enter, frame, &[state, arguments[1], arguments[2]])
            } else {
                let region = b.import_signature(lower::region_signature());
                b.ins().call_indirect(region, arguments[2], &[state, arguments[1]])
            };
            let result = b.inst_results(call)[0];
            b.ins().return_(&[result]);
        })
    }

    /// All stubs, in the order of [`Stubs`].
    pub fn stubs(&mut self) -> Result<Vec<Vec<u8>>, CompileError> {
        const _: () = assert!(size_of::<Stubs>() == 8 * crate::helpers::ALL.len());
        crate::helpers::ALL.iter().map(|h| self.stub(*h as usize as u64)).collect()
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::region::PAGE;
    use crate::region::tests::request;

    #[test]
    fn what_holds_back_more_than_there_is_room_for_holds_back_nothing() {
        // 40 times `mov rsi, [rsi]; paddd xmm, xmm` with all registers in turn, then a return.
        let mut bytes = Box::new([0x90u8; PAGE]);
        for (n, at) in (0..40).map(|n| (n, 7 * n)) {
            let (to, from) = ((n % 8) as u8, ((n + 1) % 8) as u8);
            bytes[at..at + 7].copy_from_slice(&[0x48, 0x8b, 0x36, 0x66, 0x0f, 0xfe, 0xc0 | to << 3 | from]);
        }
        bytes[280] = 0xc3;
        let ctx = Ctx(2 | Ctx::FLAT | Ctx::SSE | Ctx::FP_MASKED | Ctx::PE);
        let request = request(ctx, bytes, vec![0]);
        let mut compiler = Compiler::new(Tuning::default()).unwrap();
        let region = Region::find(&request).unwrap();
        let mut least = |hold| {
            (0..=frame::FRAME).step_by(16).find(|room| {
                compiler.room = *room;
                compiler.code_of(0, &region, false, hold).is_ok()
            })
        };
        let (held, not) = (least(true).unwrap(), least(false).unwrap());
        assert!(not < held, "{not} and {held}");
        compiler.room = not;
        assert_eq!(compiler.compile(request).unwrap().insns, region.insns());
    }
}
