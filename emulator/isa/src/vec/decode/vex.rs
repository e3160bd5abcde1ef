//! VEX encodings: AVX, AVX2, FMA, F16C, VAES and VPCLMULQDQ.
//!
//! Most have a legacy twin with the same opcode, map and mandatory prefix, whose name lacks the V: they compute the same, but
//! write another register than they read. The others have rows here.

use iced_x86::{Code, EncodingKind, MandatoryPrefix, Mnemonic, OpCodeInfo, OpCodeOperandKind as K, OpCodeTableKind};
use std::collections::HashMap;
use std::sync::OnceLock;

use super::{load, plan, store};
use crate::vec::Operand::{Flags, Imm8, Xmm};
use crate::vec::Shape::{self, *};
use crate::vec::VecOp::{self, *};
use crate::vec::{Check, FmaKind, FmaOp, FmaOrder, Fmt, FpOp, HalvesOp, Lanes, Mem, Op, Operand, Vec3Op, VecInsn, Wide};

/// The plan of a VEX encoding.
pub(super) fn decode(code: Code) -> Option<VecInsn> {
    let plan = own(code.mnemonic(), code.op_code())
        .or_else(|| own_operands(code))
        .or_else(|| fma(code.mnemonic(), code.op_code()))
        .or_else(|| super::legacy(twin(code)?))?;
    Some(with_vex(plan, code.op_code()))
}

/// Turns the plan of a legacy form, or of a row here, into that of the encoding.
fn with_vex(p: VecInsn, info: &OpCodeInfo) -> VecInsn {
    let bytes = info.memory_size().size() as u8;
    // Only moves that demand alignment by name do so (SDM Vol. 1, "Memory Alignment" of AVX).
    let copies = matches!(p.op, Op::Vec(Copy));
    let mem = match p.mem {
        // Of VMOVSS and VMOVSD the register form is another encoding.
        _ if bytes == 0 => Mem::None,
        Mem::None => Mem::None,
        Mem::Load { aligned, .. } => Mem::Load { bytes, aligned: aligned && copies },
        Mem::Store { aligned, .. } => Mem::Store { bytes, aligned: aligned && copies },
    };
    VecInsn { mem, check: Check::Avx, vex: Some(wide(&p, info)), ..p }
}

fn operands(info: &OpCodeInfo) -> impl Iterator<Item = K> {
    (0..info.op_count()).map(|n| info.op_kind(n))
}

fn is_ymm(kind: K) -> bool {
    matches!(kind, K::ymm_reg | K::ymm_rm | K::ymm_vvvv | K::ymm_is4 | K::ymm_or_mem)
}

fn wide(p: &VecInsn, info: &OpCodeInfo) -> Wide {
    if !operands(info).any(is_ymm) {
        return Wide::No;
    }
    match p.op {
        Op::Vec(ExtendS(from, to) | ExtendU(from, to)) => Wide::Widen((16 / (to.bytes() / from.bytes())) as u8),
        Op::Fp(FpOp::CvtPs2Pd | FpOp::CvtDq2Pd | FpOp::CvtPh2Ps) => Wide::Widen(8),
        Op::Fp(FpOp::CvtPd2Ps | FpOp::CvtPd2Dq(_) | FpOp::CvtPs2Ph) => Wide::Narrow,
        Op::Vec(MoveMask(_)) => Wide::Masks,
        Op::Vec(Blend(F32 | I32)) => Wide::Each(4),
        Op::Vec(Blend(F64) | ShufflePd) => Wide::Each(2),
        Op::Vec(SlidingAbsDiff) => Wide::Each(3),
        Op::Vec(Splat(_)) => Wide::Shared,
        _ if matches!(p.b, Imm8) => Wide::Shared,
        // Counts of shifts, VBROADCASTF128.
        _ if !operands(info).skip(1).filter(|k| *k != K::imm8).last().is_some_and(is_ymm)
            && info.op_count() > 1
            && is_ymm(info.op_kind(0)) =>
        {
            let whole = matches!(info.op_kind(1), K::mem) && info.memory_size().size() == 32;
            if whole { Wide::Each(0) } else { Wide::Shared }
        }
        _ => Wide::Each(0),
    }
}

/// What twins have in common.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    table: OpCodeTableKind,
    prefix: u8,
    opcode: u32,
    group: i32,
}

impl Key {
    fn new(info: &OpCodeInfo) -> Key {
        let prefix = match info.mandatory_prefix() {
            MandatoryPrefix::None | MandatoryPrefix::PNP => 0,
            MandatoryPrefix::P66 => 0x66,
            MandatoryPrefix::PF3 => 0xf3,
            MandatoryPrefix::PF2 => 0xf2,
        };
        Key { table: info.table(), prefix, opcode: info.op_code(), group: info.group_index() }
    }
}

/// The legacy encoding of the same operation.
fn twin(code: Code) -> Option<Code> {
    static LEGACY: OnceLock<HashMap<Key, Vec<Code>>> = OnceLock::new();
    let legacy = LEGACY.get_or_init(|| {
        let mut by_key: HashMap<Key, Vec<Code>> = HashMap::new();
        let vector = |c: &Code| c.op_code().encoding() == EncodingKind::Legacy && super::legacy(*c).is_some();
        for c in Code::values().filter(vector) {
            by_key.entry(Key::new(c.op_code())).or_default().push(c);
        }
        by_key
    });
    let info = code.op_code();
    let name = format!("{:?}", code.mnemonic()).to_lowercase();
    let name = name.strip_prefix('v')?;
    let wide = |info: &OpCodeInfo| operands(info).any(|k| matches!(k, K::r64_reg | K::r64_rm | K::r64_or_mem));
    let same = |c: &&Code| format!("{:?}", c.mnemonic()).to_lowercase() == name && wide(c.op_code()) == wide(info);
    legacy.get(&Key::new(info))?.iter().find(same).copied()
}

/// `op x, x, x/m`, at the width of the encoding.
fn xx(op: VecOp) -> VecInsn {
    plan(Op::Vec(op), Xmm, Xmm, load(16))
}

/// Instructions that have no legacy twin, by mnemonic.
fn own(m: Mnemonic, info: &OpCodeInfo) -> Option<VecInsn> {
    use Mnemonic::*;
    let blend = |s| plan(Op::Vec3(Vec3Op::BlendVar(s)), Xmm, Xmm, load(16));
    let halves = |op| plan(Op::Halves(op), Xmm, Xmm, load(16));
    let extract = plan(Op::Halves(HalvesOp::Extract), Xmm, Xmm, store(16));
    let signs = |s| plan(Op::Test(Some(s)), Flags, Xmm, load(16));
    let zero = |all| plan(Op::Zero(all), Operand::None, Operand::None, Mem::None);
    Some(match m {
        Vbroadcastss => xx(Splat(F32)),
        Vbroadcastsd => xx(Splat(F64)),
        Vbroadcastf128 | Vbroadcasti128 => xx(Copy),
        Vpbroadcastb => xx(Splat(I8)),
        Vpbroadcastw => xx(Splat(I16)),
        Vpbroadcastd => xx(Splat(I32)),
        Vpbroadcastq => xx(Splat(I64)),
        Vblendvps => blend(F32),
        Vblendvpd => blend(F64),
        Vpblendvb => blend(I8),
        Vpblendd => xx(Blend(I32)),
        Vpsllvd => xx(ShiftLeftEach(I32)),
        Vpsllvq => xx(ShiftLeftEach(I64)),
        Vpsrlvd => xx(ShiftRightEach(I32)),
        Vpsrlvq => xx(ShiftRightEach(I64)),
        Vpsravd => xx(ShiftRightArithEach(I32)),
        Vtestps => signs(F32),
        Vtestpd => signs(F64),
        Vinsertf128 | Vinserti128 => halves(HalvesOp::Insert),
        Vextractf128 | Vextracti128 => extract,
        Vperm2f128 | Vperm2i128 => halves(HalvesOp::Permute128),
        Vpermq | Vpermpd => halves(HalvesOp::Permute64),
        Vpermd | Vpermps => halves(HalvesOp::Permute32),
        Vcvtph2ps => plan(Op::Fp(FpOp::CvtPh2Ps), Xmm, Xmm, load(8)),
        Vcvtps2ph => plan(Op::Fp(FpOp::CvtPs2Ph), Xmm, Xmm, store(8)),
        Vzeroupper => zero(false),
        Vzeroall => zero(true),
        _ => return masked(m, info),
    })
}

/// VPERMILPS and VPERMILPD pick by an immediate or by a register.
fn own_operands(code: Code) -> Option<VecInsn> {
    // The immediate forms have one source.
    let one = |op| VecInsn { a: Operand::None, ..xx(op) };
    Some(match code {
        Code::VEX_Vpermilps_xmm_xmm_xmmm128 | Code::VEX_Vpermilps_ymm_ymm_ymmm256 => xx(Permute32),
        Code::VEX_Vpermilpd_xmm_xmm_xmmm128 | Code::VEX_Vpermilpd_ymm_ymm_ymmm256 => xx(Permute64),
        Code::VEX_Vpermilps_xmm_xmmm128_imm8 | Code::VEX_Vpermilps_ymm_ymmm256_imm8 => xx(Shuffle32),
        Code::VEX_Vpermilpd_xmm_xmmm128_imm8 | Code::VEX_Vpermilpd_ymm_ymmm256_imm8 => one(ShufflePd),
        _ => return None,
    })
}

/// Masked moves and gathers.
fn masked(m: Mnemonic, info: &OpCodeInfo) -> Option<VecInsn> {
    use Mnemonic::*;
    let access = if info.op_kind(0) == K::mem { store(16) } else { load(16) };
    let gather = |index: Shape, data: Shape| plan(Op::Gather { index, data }, Xmm, Operand::Mem, load(16));
    Some(match m {
        Vmaskmovps | Vpmaskmovd => plan(Op::MaskedMove(I32), Xmm, Xmm, access),
        Vmaskmovpd | Vpmaskmovq => plan(Op::MaskedMove(I64), Xmm, Xmm, access),
        Vpgatherdd | Vgatherdps => gather(I32, I32),
        Vpgatherdq | Vgatherdpd => gather(I32, I64),
        Vpgatherqd | Vgatherqps => gather(I64, I32),
        Vpgatherqq | Vgatherqpd => gather(I64, I64),
        _ => return None,
    })
}

/// The names of FMA3 are regular: VFNMADD231SD.
fn fma(m: Mnemonic, info: &OpCodeInfo) -> Option<VecInsn> {
    let name = format!("{m:?}").to_lowercase();
    let name = name.strip_prefix("vf")?;
    let (kind, rest) = [
        ("maddsub", FmaKind::AddSub),
        ("msubadd", FmaKind::SubAdd),
        ("nmadd", FmaKind::NegAdd),
        ("nmsub", FmaKind::NegSub),
        ("madd", FmaKind::Add),
        ("msub", FmaKind::Sub),
    ]
    .into_iter()
    .find_map(|(prefix, kind)| Some((kind, name.strip_prefix(prefix)?)))?;
    let (order, suffix) = [("132", FmaOrder::O132), ("213", FmaOrder::O213), ("231", FmaOrder::O231)]
        .into_iter()
        .find_map(|(prefix, order)| Some((order, rest.strip_prefix(prefix)?)))?;
    let (lanes, fmt) = match suffix {
        "ps" => (Lanes::Packed, Fmt::F32),
        "pd" => (Lanes::Packed, Fmt::F64),
        "ss" => (Lanes::Scalar, Fmt::F32),
        "sd" => (Lanes::Scalar, Fmt::F64),
        _ => return None,
    };
    // FMA4 has names without a number, AVX-512 other encodings.
    (info.encoding() == EncodingKind::VEX).then(|| plan(Op::Fma(FmaOp { fmt, lanes, order, kind }), Xmm, Xmm, load(16)))
}
