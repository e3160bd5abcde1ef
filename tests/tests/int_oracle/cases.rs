//! The instructions to try, as 64-bit code. Register operands are among RAX, RCX, RDX and RBX, memory is at `[rdi]`.

/// Operand sizes: 8 bits are opcodes of their own.
const PREFIXES: [&[u8]; 3] = [&[0x66], &[], &[0x48]];

/// ModRM: register operand RDX, destination RBX.
const RBX_RDX: u8 = 0xd3;
/// Register operand RDX, memory at `[rdi]`.
const MEM_RDX: u8 = 0x17;
/// DH and BH.
const BH_DH: u8 = 0xf7;

struct List(Vec<Vec<u8>>);

impl List {
    fn add(&mut self, prefix: &[u8], opcode: &[u8], tail: &[u8]) {
        self.0.push([prefix, opcode, tail].concat());
    }

    /// An opcode with byte and full-size forms (the latter one higher), register and memory.
    fn both(&mut self, opcode: &[u8], tail: &[u8]) {
        let mut wide = opcode.to_vec();
        *wide.last_mut().expect("an opcode") += 1;
        for modrm in [RBX_RDX, MEM_RDX, BH_DH] {
            self.add(&[], opcode, &[&[modrm], tail].concat());
        }
        self.wide(&wide, tail);
    }

    /// An opcode with full-size forms.
    fn wide(&mut self, opcode: &[u8], tail: &[u8]) {
        for prefix in PREFIXES {
            for modrm in [RBX_RDX, MEM_RDX] {
                self.add(prefix, opcode, &[&[modrm], tail].concat());
            }
        }
    }

    /// A group: `reg` selects the instruction.
    fn group(&mut self, opcode: u8, reg: u8, bytes: bool, tail: &[u8]) {
        let modrm = |form: u8| form & 0xc7 | reg << 3;
        if bytes {
            for form in [RBX_RDX, MEM_RDX, BH_DH] {
                self.add(&[], &[opcode], &[&[modrm(form)], tail].concat());
            }
            return;
        }
        for prefix in PREFIXES {
            for form in [RBX_RDX, MEM_RDX] {
                self.add(prefix, &[opcode], &[&[modrm(form)], tail].concat());
            }
        }
    }
}

const IMM8: [u8; 6] = [0, 1, 0x0f, 0x7f, 0x80, 0xff];

fn arithmetic(list: &mut List) {
    for op in 0..8u8 {
        // r/m with register, register with r/m.
        list.both(&[op << 3], &[]);
        list.both(&[op << 3 | 2], &[]);
        for imm in IMM8 {
            list.add(&[], &[op << 3 | 4], &[imm]);
            list.group(0x80, op, true, &[imm]);
            list.group(0x83, op, false, &[imm]);
        }
        for imm in [[0, 0, 0, 0x80], [0xff, 0x7f, 0xff, 0x7f], [1, 0x80, 0xff, 0xff]] {
            list.add(&[0x66], &[op << 3 | 5], &imm[..2]);
            list.add(&[], &[op << 3 | 5], &imm);
            list.add(&[0x48], &[op << 3 | 5], &imm);
        }
    }
    list.both(&[0x84], &[]);
    for imm in IMM8 {
        list.add(&[], &[0xa8], &[imm]);
        list.group(0xf6, 0, true, &[imm]);
    }
    for reg in [0, 1] {
        list.group(0xfe, reg, true, &[]);
        list.group(0xff, reg, false, &[]);
    }
    for reg in 2..8 {
        list.group(0xf6, reg, true, &[]);
        list.group(0xf7, reg, false, &[]);
    }
    list.wide(&[0x0f, 0xaf], &[]);
    for imm in IMM8 {
        list.wide(&[0x6b], &[imm]);
    }
    for modrm in [RBX_RDX, MEM_RDX] {
        list.add(&[0x66], &[0x69, modrm], &[0x34, 0x92]);
        list.add(&[], &[0x69, modrm], &[0x34, 0x92, 0x65, 0x87]);
        list.add(&[0x48], &[0x69, modrm], &[0x34, 0x92, 0x65, 0x87]);
    }
}

fn shifts(list: &mut List) {
    for reg in 0..8 {
        for (opcode, bytes) in [(0xd0, true), (0xd1, false), (0xd2, true), (0xd3, false)] {
            list.group(opcode, reg, bytes, &[]);
        }
        for count in (0..36).chain([63, 64, 65, 255]) {
            list.group(0xc0, reg, true, &[count]);
            list.group(0xc1, reg, false, &[count]);
        }
    }
    for opcode in [0xa4, 0xac] {
        for count in [0, 1, 2, 7, 15, 16, 17, 24, 31, 32, 33, 47, 63, 64, 255] {
            list.wide(&[0x0f, opcode], &[count]);
        }
        list.wide(&[0x0f, opcode + 1], &[]);
    }
}

fn bits(list: &mut List) {
    for op in 4..8 {
        list.wide(&[0x0f, 0x83 | op << 3], &[]);
        for bit in [0, 1, 15, 16, 31, 32, 63, 255] {
            for prefix in PREFIXES {
                for form in [RBX_RDX, MEM_RDX] {
                    list.add(prefix, &[0x0f, 0xba], &[form & 0xc7 | op << 3, bit]);
                }
            }
        }
    }
    list.wide(&[0x0f, 0xbc], &[]);
    list.wide(&[0x0f, 0xbd], &[]);
    for modrm in [RBX_RDX, MEM_RDX] {
        list.add(&[0x66, 0xf3], &[0x0f, 0xb8], &[modrm]);
        list.add(&[0xf3], &[0x0f, 0xb8], &[modrm]);
        list.add(&[0xf3, 0x48], &[0x0f, 0xb8], &[modrm]);
    }
    list.add(&[], &[0x0f, 0xcb], &[]);
    list.add(&[0x48], &[0x0f, 0xcb], &[]);
}

fn moves(list: &mut List) {
    list.both(&[0x86], &[]);
    list.both(&[0x0f, 0xb0], &[]);
    list.both(&[0x0f, 0xc0], &[]);
    list.both(&[0x88], &[]);
    list.both(&[0x8a], &[]);
    for opcode in [0xb6, 0xb7, 0xbe, 0xbf] {
        list.wide(&[0x0f, opcode], &[]);
    }
    list.wide(&[0x63], &[]);
    for prefix in PREFIXES {
        list.add(prefix, &[0x98], &[]);
        list.add(prefix, &[0x99], &[]);
        // lea rdx, [rax+rcx*4-0x80]; lea edx, [eax+ecx*8+0x12345678]
        list.add(prefix, &[0x8d], &[0x54, 0x88, 0x80]);
        list.add(&[&[0x67], prefix].concat(), &[0x8d], &[0x94, 0xc8, 0x78, 0x56, 0x34, 0x12]);
    }
    for cond in 0..16 {
        list.add(&[], &[0x0f, 0x90 | cond], &[0xc3]);
        list.add(&[], &[0x0f, 0x90 | cond], &[0xc7]);
        list.add(&[], &[0x0f, 0x90 | cond], &[0x07]);
        list.wide(&[0x0f, 0x40 | cond], &[]);
    }
    for opcode in [0x9e, 0x9f, 0xf5, 0xf8, 0xf9] {
        list.add(&[], &[opcode], &[]);
    }
    // CMPXCHG8B, CMPXCHG16B, with and without LOCK.
    for prefix in [&[][..], &[0x48], &[0xf0], &[0xf0, 0x48]] {
        list.add(prefix, &[0x0f, 0xc7], &[0x0f]);
    }
    // lock add [rdi], edx; lock xadd [rdi], edx; lock bts dword [rdi], 3
    list.add(&[0xf0], &[0x01], &[MEM_RDX]);
    list.add(&[0xf0], &[0x0f, 0xc1], &[MEM_RDX]);
    list.add(&[0xf0], &[0x0f, 0xba], &[0x2f, 3]);
}

/// VEX.vvvv naming RCX, or nothing.
const RCX: u8 = 0x70;
const NOTHING: u8 = 0x78;

impl List {
    /// A VEX-encoded instruction on general registers: opcode map, mandatory prefix by number, both widths, register and memory.
    fn vex(&mut self, map: u8, prefix: u8, vvvv: u8, opcode: u8, reg: Option<u8>, tail: &[u8]) {
        for w in [0, 0x80] {
            for form in [RBX_RDX, MEM_RDX] {
                let modrm = reg.map_or(form, |reg| form & 0xc7 | reg << 3);
                self.add(&[0xc4, 0xe0 | map, w | vvvv | prefix], &[opcode, modrm], tail);
            }
        }
    }
}

/// BMI1, BMI2, LZCNT, ADX, MOVBE, CRC32.
fn later(list: &mut List) {
    list.vex(2, 0, RCX, 0xf2, None, &[]);
    for reg in 1..4 {
        list.vex(2, 0, RCX, 0xf3, Some(reg), &[]);
    }
    for prefix in 0..4 {
        list.vex(2, prefix, RCX, 0xf7, None, &[]);
    }
    for prefix in [0, 2, 3] {
        list.vex(2, prefix, RCX, 0xf5, None, &[]);
    }
    list.vex(2, 3, RCX, 0xf6, None, &[]);
    for count in [0, 1, 31, 32, 63, 64, 255] {
        list.vex(3, 3, NOTHING, 0xf0, None, &[count]);
    }
    for modrm in [RBX_RDX, MEM_RDX] {
        for opcode in [0xbc, 0xbd] {
            for prefix in [&[0x66, 0xf3][..], &[0xf3], &[0xf3, 0x48]] {
                list.add(prefix, &[0x0f, opcode], &[modrm]);
            }
        }
        for prefix in [&[0x66][..], &[0x66, 0x48], &[0xf3], &[0xf3, 0x48]] {
            list.add(prefix, &[0x0f, 0x38, 0xf6], &[modrm]);
        }
        for prefix in [&[0xf2][..], &[0xf2, 0x48]] {
            list.add(prefix, &[0x0f, 0x38, 0xf0], &[modrm]);
        }
        for prefix in [&[0x66, 0xf2][..], &[0xf2], &[0xf2, 0x48]] {
            list.add(prefix, &[0x0f, 0x38, 0xf1], &[modrm]);
        }
    }
    for opcode in [0xf0, 0xf1] {
        for prefix in PREFIXES {
            list.add(prefix, &[0x0f, 0x38, opcode], &[MEM_RDX]);
        }
    }
}

fn later_on_this_host() -> bool {
    let has = [
        std::is_x86_feature_detected!("bmi1"),
        std::is_x86_feature_detected!("bmi2"),
        std::is_x86_feature_detected!("lzcnt"),
        std::is_x86_feature_detected!("adx"),
        std::is_x86_feature_detected!("movbe"),
        std::is_x86_feature_detected!("sse4.2"),
    ];
    let all = has.iter().all(|h| *h);
    if !all {
        println!("this host lacks BMI, ADX, MOVBE or SSE4.2: their instructions were not tried");
    }
    all
}

/// Every instruction.
pub fn all() -> Vec<Vec<u8>> {
    let mut list = List(Vec::new());
    arithmetic(&mut list);
    shifts(&mut list);
    bits(&mut list);
    moves(&mut list);
    if later_on_this_host() {
        later(&mut list);
    }
    list.0
}
