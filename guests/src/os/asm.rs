//! A thin layer over [`iced_x86::code_asm`]: labels by name, strings, several sections, and the [`code!`] notation.
//!
//! A label that starts with a dot belongs to the last label without one, so each routine may have its own `.loop`.
//! Sections know each other's labels through absolute fixups (`addr eax, "label"`), which [`link`] patches last.

use std::collections::BTreeMap;

use iced_x86::code_asm::{
    AsmMemoryOperand, AsmRegister8, AsmRegister16, AsmRegister32, AsmRegister64, AsmRegisterCr, AsmRegisterDr, AsmRegisterSegment,
    AsmRegisterSt, AsmRegisterXmm, CodeAssembler, CodeLabel, ptr,
};
use iced_x86::{BlockEncoderOptions, Code, IcedError, Instruction};

/// What can be wrong with a guest program of ours. All of these are bugs in this crate, and unit tests find them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AsmError {
    /// iced-x86 refused an instruction or an operand.
    #[error("{0}")]
    Iced(#[from] IcedError),
    /// A label is used but never defined.
    #[error("label {0:?} is used but not defined")]
    Undefined(String),
    /// A label is defined twice.
    #[error("label {0:?} is defined twice")]
    Duplicate(String),
    /// An absolute address does not fit the field that should hold it.
    #[error("address {1:#x} of {0:?} does not fit its field")]
    TooFar(String, u64),
    /// A section reaches into the next one.
    #[error("the section at {0:#x} overlaps the next one")]
    Overlap(u64),
}

struct Named {
    label: CodeLabel,
    defined: bool,
}

/// A field that takes the absolute address of a label: it ends `back` bytes before `end` and is `width` bytes wide.
struct Fixup {
    end: CodeLabel,
    back: u64,
    width: u64,
    target: String,
}

/// One section: code and data of one operand size (16, 32 or 64), linked at one address.
pub(crate) struct Asm {
    /// The assembler of iced-x86, for what [`code!`] cannot say.
    pub(crate) code: CodeAssembler,
    base: u64,
    scope: String,
    labels: BTreeMap<String, Named>,
    strings: Vec<String>,
    fixups: Vec<Fixup>,
    /// How many checks a test kernel has emitted, see `tests_kernels`.
    pub(crate) tally: i32,
    blobs: Vec<Vec<u8>>,
}

impl Asm {
    /// Starts a section for code of `bits` bits that runs at `base`.
    pub(crate) fn new(bits: u32, base: i32) -> Result<Self, AsmError> {
        let code = CodeAssembler::new(bits)?;
        let (scope, labels) = (format!("section.{base:x}"), BTreeMap::new());
        Ok(Asm {
            code,
            base: u64::from(base.unsigned_abs()),
            scope,
            labels,
            strings: Vec::new(),
            fixups: Vec::new(),
            tally: 0,
            blobs: Vec::new(),
        })
    }

    fn full_name(&self, name: &str) -> String {
        if name.starts_with('.') { format!("{}{name}", self.scope) } else { name.to_owned() }
    }

    /// The label `name`, to jump to or to take as a memory operand. It may be defined later.
    pub(crate) fn to(&mut self, name: &str) -> CodeLabel {
        let full = self.full_name(name);
        let code = &mut self.code;
        self.labels.entry(full).or_insert_with(|| Named { label: code.create_label(), defined: false }).label
    }

    /// Defines the label `name` here.
    pub(crate) fn label(&mut self, name: &str) -> Result<(), AsmError> {
        if !name.starts_with('.') {
            name.clone_into(&mut self.scope);
        }
        let full = self.full_name(name);
        self.to(name);
        let Some(named) = self.labels.get_mut(&full) else { return Err(AsmError::Undefined(full)) };
        if named.defined {
            return Err(AsmError::Duplicate(full));
        }
        named.defined = true;
        self.code.set_label(&mut named.label)?;
        self.code.zero_bytes()?; // lets the next instruction have a label of its own
        Ok(())
    }

    fn here(&mut self) -> Result<CodeLabel, AsmError> {
        let mut label = self.code.create_label();
        self.code.set_label(&mut label)?;
        self.code.zero_bytes()?;
        Ok(label)
    }

    /// The name of the label of `text` among the section's zero-terminated strings.
    pub(crate) fn string(&mut self, text: &str) -> String {
        let index = self.strings.iter().position(|s| s == text).unwrap_or_else(|| {
            self.strings.push(text.to_owned());
            self.strings.len() - 1
        });
        format!("string {index}")
    }

    /// `reg` = the address of the string `text`.
    pub(crate) fn load_string(&mut self, reg: AsmRegister64, text: &str) -> Result<(), AsmError> {
        let name = self.string(text);
        let label = self.to(&name);
        Ok(self.code.lea(reg, ptr(label))?)
    }

    /// The name of the label of a copy of `bytes` that is emitted behind the code.
    pub(crate) fn blob(&mut self, bytes: &[u8]) -> String {
        self.blobs.push(bytes.to_vec());
        format!("blob {}", self.blobs.len() - 1)
    }

    fn fixup(&mut self, back: u64, width: u64, target: &str) -> Result<(), AsmError> {
        let (end, target) = (self.here()?, self.full_name(target));
        self.fixups.push(Fixup { end, back, width, target });
        Ok(())
    }

    /// `reg` = the absolute address of a label of any section.
    pub(crate) fn address(&mut self, reg: AsmRegister32, target: &str) -> Result<(), AsmError> {
        self.code.mov(reg, 0)?;
        self.fixup(0, 4, target)
    }

    /// A far jump (`JMP ptr16:32`, or `ptr16:16` when `wide` is false) to a label of any section.
    pub(crate) fn far_jump(&mut self, selector: u16, target: &str, wide: bool) -> Result<(), AsmError> {
        let code = if wide { Code::Jmp_ptr1632 } else { Code::Jmp_ptr1616 };
        self.code.add_instruction(Instruction::with_far_branch(code, selector, 0)?)?;
        self.fixup(2, if wide { 4 } else { 2 }, target)
    }

    /// Eight bytes of data that hold the address of a label of any section.
    pub(crate) fn pointer(&mut self, target: &str) -> Result<(), AsmError> {
        self.code.dq(&[0])?;
        self.fixup(0, 8, target)
    }

    /// Four bytes of data that hold the address of a label of any section.
    pub(crate) fn pointer_32(&mut self, target: &str) -> Result<(), AsmError> {
        self.code.dd(&[0])?;
        self.fixup(0, 4, target)
    }

    fn assemble(mut self) -> Result<Assembled, AsmError> {
        for (index, text) in std::mem::take(&mut self.strings).iter().enumerate() {
            self.label(&format!("string {index}"))?;
            self.code.db(&[text.as_bytes(), &[0]].concat())?;
        }
        for (index, bytes) in std::mem::take(&mut self.blobs).iter().enumerate() {
            self.label(&format!("blob {index}"))?;
            self.code.db(bytes)?;
        }
        if let Some((name, _)) = self.labels.iter().find(|(_, named)| !named.defined) {
            return Err(AsmError::Undefined(name.clone()));
        }
        let out = self.code.assemble_options(self.base, BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS)?;
        let mut symbols = Vec::new();
        for (name, named) in self.labels {
            symbols.push((name, out.label_ip(&named.label)?));
        }
        let mut fixups = Vec::new();
        for fixup in self.fixups {
            let end = out.label_ip(&fixup.end)? - self.base - fixup.back;
            fixups.push(((end - fixup.width) as usize..end as usize, fixup.target));
        }
        Ok(Assembled { section: Section { base: self.base, bytes: out.inner.code_buffer }, symbols, fixups })
    }
}

struct Assembled {
    section: Section,
    symbols: Vec<(String, u64)>,
    fixups: Vec<(std::ops::Range<usize>, String)>,
}

/// Bytes and the address they are linked for.
pub(crate) struct Section {
    pub(crate) base: u64,
    pub(crate) bytes: Vec<u8>,
}

/// Assembles the sections and patches the absolute addresses among them. Strings and blobs are private to their section.
pub(crate) fn link(sections: Vec<Asm>) -> Result<Vec<Section>, AsmError> {
    let assembled = sections.into_iter().map(Asm::assemble).collect::<Result<Vec<_>, _>>()?;
    let mut global = BTreeMap::new();
    for (name, address) in assembled.iter().flat_map(|part| &part.symbols) {
        if !name.starts_with("string ") && !name.starts_with("blob ") && global.insert(name.clone(), *address).is_some() {
            return Err(AsmError::Duplicate(name.clone()));
        }
    }
    let patch = |mut part: Assembled| {
        let own: BTreeMap<_, _> = part.symbols.iter().cloned().collect();
        for (field, target) in part.fixups {
            let address = own.get(&target).or_else(|| global.get(&target)).copied();
            let address = address.ok_or_else(|| AsmError::Undefined(target.clone()))?;
            let bytes = address.to_le_bytes();
            let (low, high) = bytes.split_at(field.len());
            if high.iter().any(|&byte| byte != 0) {
                return Err(AsmError::TooFar(target, address));
            }
            part.section.bytes[field].copy_from_slice(low);
        }
        Ok(part.section)
    };
    assembled.into_iter().map(patch).collect()
}

/// Joins sections, which must be in order of address, into the bytes of one segment.
pub(crate) fn join(sections: &[Section]) -> Result<Section, AsmError> {
    let base = sections.first().map_or(0, |first| first.base);
    let mut bytes = Vec::new();
    for section in sections {
        let at = (section.base - base) as usize;
        if bytes.len() > at {
            return Err(AsmError::Overlap(base));
        }
        bytes.resize(at, 0);
        bytes.extend_from_slice(&section.bytes);
    }
    Ok(Section { base, bytes })
}

/// What [`code!`] takes as an operand: what iced takes, and the name of a label.
pub(crate) trait Operand {
    type Out;
    fn resolve(self, asm: &mut Asm) -> Self::Out;
}

impl Operand for &str {
    type Out = CodeLabel;
    fn resolve(self, asm: &mut Asm) -> CodeLabel {
        asm.to(self)
    }
}

macro_rules! plain_operands {
    ($($ty:ty)*) => { $(
        impl Operand for $ty {
            type Out = $ty;
            fn resolve(self, _: &mut Asm) -> $ty {
                self
            }
        }
    )* };
}

plain_operands!(AsmMemoryOperand AsmRegister8 AsmRegister16 AsmRegister32 AsmRegister64 AsmRegisterCr AsmRegisterDr AsmRegisterSegment);
plain_operands!(AsmRegisterSt AsmRegisterXmm i32 u32 i64 u64);

/// Assembly in nearly the notation of the manuals, one statement per line:
/// `"name":` defines a label, `mov eax, 5;` is an instruction (with iced's names: `in_`, `byte_ptr(rax)`),
/// `lea rdi, "name";` takes a label's address, `addr eax, "name";` does so absolutely and across sections,
/// `text rdi, "…";` takes a string's address, `print "…";` prints it.
macro_rules! code {
    ($a:ident =>) => {};
    ($a:ident => $op:ident ; $($rest:tt)*) => { $a.code.$op()?; code!($a => $($rest)*) };
    ($a:ident => $label:literal : $($rest:tt)*) => { $a.label($label)?; code!($a => $($rest)*) };
    ($a:ident => print $text:literal ; $($rest:tt)*) => {
        $a.load_string(rdi, $text)?;
        code!($a => call "print"; $($rest)*)
    };
    ($a:ident => text $reg:ident , $text:literal ; $($rest:tt)*) => { $a.load_string($reg, $text)?; code!($a => $($rest)*) };
    ($a:ident => addr $reg:ident , $label:literal ; $($rest:tt)*) => { $a.address($reg, $label)?; code!($a => $($rest)*) };
    ($a:ident => lea $reg:ident , $label:literal ; $($rest:tt)*) => {
        let label = $a.to($label);
        $a.code.lea($reg, ptr(label))?;
        code!($a => $($rest)*)
    };
    ($a:ident => rep $op:ident ; $($rest:tt)*) => { $a.code.rep().$op()?; code!($a => $($rest)*) };
    ($a:ident => repe $op:ident ; $($rest:tt)*) => { $a.code.repe().$op()?; code!($a => $($rest)*) };
    ($a:ident => repne $op:ident ; $($rest:tt)*) => { $a.code.repne().$op()?; code!($a => $($rest)*) };
    ($a:ident => $op:ident $x:expr ; $($rest:tt)*) => {
        let x = $crate::os::asm::Operand::resolve($x, $a);
        $a.code.$op(x)?;
        code!($a => $($rest)*)
    };
    ($a:ident => $op:ident $x:expr , $y:expr ; $($rest:tt)*) => {
        let (x, y) = ($crate::os::asm::Operand::resolve($x, $a), $crate::os::asm::Operand::resolve($y, $a));
        $a.code.$op(x, y)?;
        code!($a => $($rest)*)
    };
    ($a:ident => $op:ident $x:expr , $y:expr , $z:expr ; $($rest:tt)*) => {
        $a.code.$op($x, $y, $z)?;
        code!($a => $($rest)*)
    };
}
pub(crate) use code;
