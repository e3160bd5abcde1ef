//! The features of CPU models: one row each, with its word, its CPUID bit, and the encodings that need it.

use iced_x86::{Code, CpuidFeature};
use std::fmt;
use std::ops::{BitAnd, BitOr};
use std::sync::OnceLock;

/// Where CPUID reports a feature: leaf, subleaf, register (0-3: EAX, EBX, ECX, EDX) and bit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Leaf.
    pub leaf: u32,
    /// Subleaf.
    pub subleaf: u32,
    /// Register: 0-3 for EAX, EBX, ECX, EDX.
    pub register: u8,
    /// Bit.
    pub bit: u8,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The feature.
    pub feature: Feature,
    /// Its word on the command line; empty for what comes with the generation alone.
    pub word: &'static str,
    /// Its CPUID bit.
    pub place: Option<Place>,
}

const fn bit(leaf: u32, subleaf: u32, register: u8, bit: u8) -> Option<Place> {
    Some(Place { leaf, subleaf, register, bit })
}

const fn basic(n: u8) -> Option<Place> {
    bit(1, 0, 3, n)
}

const fn more(n: u8) -> Option<Place> {
    bit(1, 0, 2, n)
}

const fn structured(register: u8, n: u8) -> Option<Place> {
    bit(7, 0, register, n)
}

const fn xsave(n: u8) -> Option<Place> {
    bit(0xd, 1, 0, n)
}

const fn extended(register: u8, n: u8) -> Option<Place> {
    bit(0x8000_0001, 0, register, n)
}

const fn sizes(n: u8) -> Option<Place> {
    bit(0x8000_0008, 0, 1, n)
}

const EBX: u8 = 1;
const ECX: u8 = 2;
const EDX: u8 = 3;

macro_rules! features {
    ($($name:ident $word:literal $place:expr;)*) => {
        /// A feature of a CPU model; the manual's names, and the words of the command line in [`ROWS`].
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u8)]
        #[allow(missing_docs)]
        pub enum Feature { $($name),* }

        /// Every feature, by number.
        pub const ROWS: &[Row] = &[$(Row { feature: Feature::$name, word: $word, place: $place }),*];
    };
}

features! {
    // What comes with the generation.
    I186        ""                  None;
    I286        ""                  None;
    I386        ""                  None;
    I486        ""                  None;
    Cpuid       "cpuid"             None;
    Nopl        "nopl"              None;
    // What no model has.
    Never       ""                  None;
    // Leaf 1, EDX.
    Fpu         "fpu"               basic(0);
    Vme         "vme"               basic(1);
    De          "de"                basic(2);
    Pse         "pse"               basic(3);
    Tsc         "tsc"               basic(4);
    Msr         "msr"               basic(5);
    Pae         "pae"               basic(6);
    Mce         "mce"               basic(7);
    Cx8         "cx8"               basic(8);
    Apic        "apic"              basic(9);
    Sep         "sep"               basic(11);
    Mtrr        "mtrr"              basic(12);
    Pge         "pge"               basic(13);
    Mca         "mca"               basic(14);
    Cmov        "cmov"              basic(15);
    Pat         "pat"               basic(16);
    Pse36       "pse36"             basic(17);
    Clflush     "clflush"           basic(19);
    Mmx         "mmx"               basic(23);
    Fxsr        "fxsr"              basic(24);
    Sse         "sse"               basic(25);
    Sse2        "sse2"              basic(26);
    Htt         "htt"               basic(28);
    // Leaf 1, ECX.
    Sse3        "sse3"              more(0);
    Pclmulqdq   "pclmulqdq"         more(1);
    Monitor     "monitor"           more(3);
    Ssse3       "ssse3"             more(9);
    Fma         "fma"               more(12);
    Cx16        "cx16"              more(13);
    Pcid        "pcid"              more(17);
    Sse41       "sse4.1"            more(19);
    Sse42       "sse4.2"            more(20);
    X2apic      "x2apic"            more(21);
    Movbe       "movbe"             more(22);
    Popcnt      "popcnt"            more(23);
    TscDeadline "tsc-deadline"      more(24);
    Aes         "aes"               more(25);
    Xsave       "xsave"             more(26);
    Avx         "avx"               more(28);
    F16c        "f16c"              more(29);
    Rdrand      "rdrand"            more(30);
    Hypervisor  "hypervisor"        more(31);
    // Leaf 6, EAX.
    Arat        "arat"              bit(6, 0, 0, 2);
    // Leaf 7.
    Fsgsbase    "fsgsbase"          structured(EBX, 0);
    TscAdjust   "tsc-adjust"        structured(EBX, 1);
    Bmi1        "bmi1"              structured(EBX, 3);
    Avx2        "avx2"              structured(EBX, 5);
    Smep        "smep"              structured(EBX, 7);
    Bmi2        "bmi2"              structured(EBX, 8);
    Erms        "erms"              structured(EBX, 9);
    Invpcid     "invpcid"           structured(EBX, 10);
    FcsFds      "no-fcs-fds"        structured(EBX, 13);
    Rdseed      "rdseed"            structured(EBX, 18);
    Adx         "adx"               structured(EBX, 19);
    Smap        "smap"              structured(EBX, 20);
    Clflushopt  "clflushopt"        structured(EBX, 23);
    Clwb        "clwb"              structured(EBX, 24);
    Sha         "sha"               structured(EBX, 29);
    Umip        "umip"              structured(ECX, 2);
    Pku         "pku"               structured(ECX, 3);
    Gfni        "gfni"              structured(ECX, 8);
    Vaes        "vaes"              structured(ECX, 9);
    Vpclmulqdq  "vpclmulqdq"        structured(ECX, 10);
    La57        "la57"              structured(ECX, 16);
    Rdpid       "rdpid"             structured(ECX, 22);
    Fsrm        "fsrm"              structured(EDX, 4);
    Serialize   "serialize"         structured(EDX, 14);
    ArchCaps    "arch-capabilities" structured(EDX, 29);
    // Leaf 0Dh, subleaf 1.
    Xsaveopt    "xsaveopt"          xsave(0);
    Xsavec      "xsavec"            xsave(1);
    Xgetbv1     "xgetbv1"           xsave(2);
    Xsaves      "xsaves"            xsave(3);
    // Leaf 80000001h.
    Syscall     "syscall"           extended(EDX, 11);
    Nx          "nx"                extended(EDX, 20);
    Pdpe1gb     "pdpe1gb"           extended(EDX, 26);
    Rdtscp      "rdtscp"            extended(EDX, 27);
    Lm          "lm"                extended(EDX, 29);
    Lahf64      "lahf64"            extended(ECX, 0);
    Lzcnt       "lzcnt"             extended(ECX, 5);
    Sse4a       "sse4a"             extended(ECX, 6);
    Prefetchw   "prefetchw"         extended(ECX, 8);
    // Leaves 80000007h and 80000008h.
    InvariantTsc "invtsc"           bit(0x8000_0007, 0, 3, 8);
    Clzero      "clzero"            sizes(0);
    Wbnoinvd    "wbnoinvd"          sizes(9);
}

/// What CPUID must not claim yet, because no code does it.
pub const NOT_YET: &[Feature] = {
    use Feature::*;
    &[Gfni]
};

/// A set of features.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Features(u128);

impl Features {
    /// No feature.
    pub const NONE: Features = Features(0);
    /// Every feature that a model could have: whatever has semantics decodes.
    pub const ALL: Features = Features(((1 << ROWS.len()) - 1) & !(1 << Feature::Never as u8));

    /// A set from a list.
    #[must_use]
    pub const fn of(list: &[Feature]) -> Features {
        let mut bits = 0;
        let mut n = 0;
        while n < list.len() {
            bits |= 1 << list[n] as u8;
            n += 1;
        }
        Features(bits)
    }

    /// Whether a feature is in.
    #[inline]
    #[must_use]
    pub const fn has(self, feature: Feature) -> bool {
        self.0 >> feature as u8 & 1 != 0
    }

    /// Whether all of another set are in.
    #[inline]
    #[must_use]
    pub const fn has_all(self, other: Features) -> bool {
        other.0 & !self.0 == 0
    }

    /// With a feature.
    #[must_use]
    pub const fn with(self, feature: Feature) -> Features {
        Features(self.0 | 1 << feature as u8)
    }

    /// Without those of another set.
    #[must_use]
    pub const fn without(self, other: Features) -> Features {
        Features(self.0 & !other.0)
    }

    /// Union, also in constants.
    #[must_use]
    pub const fn and(self, other: Features) -> Features {
        Features(self.0 | other.0)
    }

    /// As a number, for keys of caches.
    #[must_use]
    pub const fn bits(self) -> u128 {
        self.0
    }

    /// The features in it.
    pub fn iter(self) -> impl Iterator<Item = Feature> {
        ROWS.iter().map(|r| r.feature).filter(move |f| self.has(*f))
    }

    /// Whether an encoding exists on a CPU with these features. Without an FPU its instructions do, too: they do nothing.
    #[must_use]
    pub fn allows(self, code: Code) -> bool {
        let needed = required(code);
        self.has_all(needed) || (needed.has(Feature::Fpu) && !self.has(Feature::Fpu) && !needed.has(Feature::Cmov))
    }
}

impl BitOr for Features {
    type Output = Features;
    fn bitor(self, other: Features) -> Features {
        Features(self.0 | other.0)
    }
}

impl BitAnd for Features {
    type Output = Features;
    fn bitand(self, other: Features) -> Features {
        Features(self.0 & other.0)
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl Feature {
    /// By its word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Feature> {
        ROWS.iter().find(|r| r.word == word && !word.is_empty()).map(|r| r.feature)
    }

    /// Its word; for what has none, the name in lower case.
    #[must_use]
    pub fn word(self) -> &'static str {
        ROWS.get(self as usize).map_or("", |r| r.word)
    }

    /// Its CPUID bit.
    #[must_use]
    pub fn place(self) -> Option<Place> {
        ROWS.get(self as usize).and_then(|r| r.place)
    }

    /// Whether Egret has it.
    #[must_use]
    pub fn implemented(self) -> bool {
        !NOT_YET.contains(&self)
    }
}

/// The features that an encoding needs, all of them.
#[must_use]
pub fn required(code: Code) -> Features {
    static TABLE: OnceLock<Vec<Features>> = OnceLock::new();
    let table = TABLE.get_or_init(|| Code::values().map(needs).collect());
    table.get(code as usize).copied().unwrap_or_default()
}

fn needs(code: Code) -> Features {
    use Code::*;
    // Hints in encodings that every chip since the P6 takes as NOPs.
    if matches!(
        code,
        Endbr32
            | Endbr64
            | Rdsspd_r32
            | Rdsspq_r64
            | Cldemote_m8
            | Prefetch_m8
            | Prefetchw_m8
            | Prefetchwt1_m8
            | Prefetchit0_m8
            | Prefetchit1_m8
    ) {
        return Features::of(&[Feature::Nopl]);
    }
    let set = code.cpuid_features().iter().filter_map(|f| feature(*f)).fold(Features::NONE, Features::with);
    let x87 = code.cpuid_features().iter().any(|f| matches!(f, CpuidFeature::FPU287 | CpuidFeature::FPU387));
    if x87 { set.with(Feature::Fpu) } else { set }
}

/// What iced's name for a feature means here: `None` when every chip has it.
fn feature(f: CpuidFeature) -> Option<Feature> {
    use CpuidFeature as F;
    use Feature::*;
    Some(match f {
        F::INTEL8086 | F::PAUSE => return None,
        F::INTEL186 => I186,
        F::INTEL286 => I286,
        F::INTEL386 => I386,
        F::INTEL486 => I486,
        F::X64 => Lm,
        F::CPUID => Cpuid,
        F::MULTIBYTENOP => Nopl,
        F::FPU => Fpu,
        F::FPU287 => I286,
        F::FPU387 => I386,
        F::TSC => Tsc,
        F::MSR => Msr,
        F::CX8 => Cx8,
        F::SEP => Sep,
        F::CMOV => Cmov,
        F::CLFSH => Clflush,
        F::MMX => Mmx,
        F::FXSR => Fxsr,
        F::RDPMC => Nopl,
        _ => return vector_feature(f).or(Some(Never)),
    })
}

fn vector_feature(f: CpuidFeature) -> Option<Feature> {
    use CpuidFeature as F;
    use Feature::*;
    Some(match f {
        F::SSE => Sse,
        F::SSE2 => Sse2,
        F::SSE3 => Sse3,
        F::SSSE3 => Ssse3,
        F::SSE4_1 => Sse41,
        F::SSE4_2 => Sse42,
        F::SSE4A => Sse4a,
        F::PCLMULQDQ => Pclmulqdq,
        F::AES => Aes,
        F::SHA => Sha,
        F::GFNI => Gfni,
        F::AVX => Avx,
        F::AVX2 => Avx2,
        F::FMA => Fma,
        F::F16C => F16c,
        F::VAES => Vaes,
        F::VPCLMULQDQ => Vpclmulqdq,
        _ => return other_feature(f),
    })
}

fn other_feature(f: CpuidFeature) -> Option<Feature> {
    use CpuidFeature as F;
    use Feature::*;
    Some(match f {
        F::MONITOR => Monitor,
        F::CMPXCHG16B => Cx16,
        F::MOVBE => Movbe,
        F::POPCNT => Popcnt,
        F::XSAVE => Xsave,
        F::XSAVEOPT => Xsaveopt,
        F::XSAVEC => Xsavec,
        F::XSAVES => Xsaves,
        F::RDRAND => Rdrand,
        F::RDSEED => Rdseed,
        F::FSGSBASE => Fsgsbase,
        F::BMI1 => Bmi1,
        F::BMI2 => Bmi2,
        F::LZCNT => Lzcnt,
        F::ADX => Adx,
        F::INVPCID => Invpcid,
        F::SMAP => Smap,
        F::CLFLUSHOPT => Clflushopt,
        F::CLWB => Clwb,
        F::PKU => Pku,
        F::RDPID => Rdpid,
        F::SERIALIZE => Serialize,
        F::SYSCALL => Syscall,
        F::RDTSCP => Rdtscp,
        F::PREFETCHW => Prefetchw,
        F::CLZERO => Clzero,
        F::WBNOINVD => Wbnoinvd,
        _ => return None,
    })
}
