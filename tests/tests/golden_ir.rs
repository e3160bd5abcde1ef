//! The IR of a few instructions, as text, is what the files in `tests/golden/ir` say. After a change that is meant, run with
//! `EGRET_BLESS=1` and look at the difference that it makes to the files.

use egret_isa::Features;
use egret_isa::decode::{Decoded, decode};
use egret_isa::insn::Ctx;
use egret_isa::ir;
use std::fmt::Write;
use std::path::Path;

/// 64-bit code with every unit on; 16-bit real mode.
const LONG: Ctx = Ctx(2 | Ctx::PE | Ctx::FLAT | Ctx::X87 | Ctx::MMX | Ctx::SSE | Ctx::FP_MASKED);
const REAL: Ctx = Ctx(0);

/// File, context, code.
const FILES: &[(&str, Ctx, &[u8])] = &[
    // add eax,ecx; adc [rdi+rcx*4-8],edx; sub ah,bl; inc qword [rsi]; neg cl
    ("arithmetic", LONG, &[0x01, 0xc8, 0x11, 0x54, 0x8f, 0xf8, 0x28, 0xdc, 0x48, 0xff, 0x06, 0xf6, 0xd9]),
    // shl eax,3; shr rdx,cl; sar word [rdi],1; rol al,cl; shld eax,edx,cl
    ("shifts", LONG, &[0xc1, 0xe0, 3, 0x48, 0xd3, 0xea, 0x66, 0xd1, 0x3f, 0xd2, 0xc0, 0x0f, 0xa5, 0xd0]),
    // mul ecx; imul rax,rdx,100; div bl; idiv rcx
    ("multiplication", LONG, &[0xf7, 0xe1, 0x48, 0x6b, 0xc2, 0x64, 0xf6, 0xf3, 0x48, 0xf7, 0xf9]),
    // lock cmpxchg [rbx],ecx; xchg [rbx],al; lock xadd [rip+16],rdx; bts [rdi],esi
    ("atomics", LONG, &[0xf0, 0x0f, 0xb1, 0x0b, 0x86, 0x03, 0xf0, 0x48, 0x0f, 0xc1, 0x15, 0x10, 0, 0, 0, 0x0f, 0xab, 0x37]),
    // movsx eax,byte [rsi]; cmovg eax,edx; setb dh; bsf ecx,eax; lea rax,[rip+4]; movups xmm0,[rax]; addps xmm0,xmm1;
    // comisd xmm0,[rax]; cvttss2si eax,xmm0
    (
        "moves-and-vectors",
        LONG,
        &[
            0x0f, 0xbe, 0x06, 0x0f, 0x4f, 0xc2, 0x0f, 0x92, 0xc6, 0x0f, 0xbc, 0xc8, 0x48, 0x8d, 0x05, 4, 0, 0, 0, 0x0f, 0x10, 0x00, 0x0f,
            0x58, 0xc1, 0x66, 0x0f, 0x2f, 0x00, 0xf3, 0x0f, 0x2c, 0xc0,
        ],
    ),
    // push rbp; pop qword [rsp+8]; leave; cpuid; call +16
    ("stack-and-calls", LONG, &[0x55, 0x8f, 0x44, 0x24, 8, 0xc9, 0x0f, 0xa2, 0xe8, 0x10, 0, 0, 0]),
    // mov ax,[bp+si]; push ds; es: xlatb; loopne -2
    ("real-mode", REAL, &[0x8b, 0x02, 0x1e, 0x26, 0xd7, 0xe0, 0xfe]),
];

fn text(ctx: Ctx, mut code: &[u8]) -> String {
    let mut insns = Vec::new();
    let mut bytes = String::new();
    while !code.is_empty() {
        let padded: Vec<u8> = code.iter().copied().chain([0x90; 15]).collect();
        let Decoded::Insn(i) = decode(&padded, ctx, Features::ALL) else { panic!("{code:02x?}") };
        let (head, rest) = code.split_at(i.len.into());
        head.iter().for_each(|b| write!(bytes, "{b:02x}").expect("a string"));
        bytes.push(' ');
        insns.push(i);
        code = rest;
    }
    let block = ir::record(&insns);
    assert_eq!(ir::verify(&block), Ok(()), "{block}");
    format!("; {}\n{block}", bytes.trim_end())
}

#[test]
fn ir_is_as_recorded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/ir");
    for (name, ctx, code) in FILES {
        let file = folder.join(format!("{name}.txt"));
        let got = text(*ctx, code);
        if std::env::var_os("EGRET_BLESS").is_some() {
            std::fs::write(&file, got).expect("the golden file can be written");
            continue;
        }
        let want = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display())).replace('\r', "");
        assert_eq!(got, want, "{name}: see the top of this test");
    }
}
