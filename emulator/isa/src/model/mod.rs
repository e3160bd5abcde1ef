//! CPU models: a generation, which fixes the habits of the silicon, and features, which decide what decodes and what CPUID
//! says. `x86-64-v3,-avx2,+sha` is how people write one.

mod features;

pub use features::{Feature, Features, NOT_YET, Place, ROWS, Row, required};

use Feature as F;
use std::fmt;
use std::str::FromStr;

/// A processor generation, as far as older chips differ from the manual of today.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
#[repr(u8)]
pub enum Generation {
    /// Intel 8086: 20 address lines, segments that wrap, no undefined opcode, no shift-count mask.
    I8086,
    /// Intel 80286.
    I286,
    /// Intel 80386.
    I386,
    /// Intel 486.
    I486,
    /// Intel Pentium.
    Pentium,
    /// Everything since: what the manual says.
    #[default]
    Current,
}

impl Generation {
    /// From the oldest on.
    pub const ALL: [Generation; 6] = {
        use Generation::*;
        [I8086, I286, I386, I486, Pentium, Current]
    };
}

/// A base model.
#[derive(Debug)]
pub struct Base {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it stands for, in a line.
    pub about: &'static str,
    /// Whose habits it has.
    pub generation: Generation,
    /// CPUID leaf 1, EAX: family, model, stepping.
    pub signature: u32,
    features: Features,
}

const I386: Features = Features::of(&[F::I186, F::I286, F::I386]);
const I486: Features = I386.and(Features::of(&[F::I486, F::Cpuid, F::Fpu, F::Vme]));
const PENTIUM: Features = I486.and(Features::of(&[F::De, F::Pse, F::Tsc, F::Msr, F::Mce, F::Cx8, F::Apic]));
const P6: Features = PENTIUM.and(Features::of(&[
    F::Nopl,
    F::Pae,
    F::Sep,
    F::Mtrr,
    F::Pge,
    F::Mca,
    F::Cmov,
    F::Pat,
    F::Pse36,
    F::Mmx,
    F::Fxsr,
    F::Sse,
    F::Sse2,
    F::Clflush,
    F::Syscall,
    F::Nx,
    F::Lm,
]));
const CORE2: Features = P6.and(Features::of(&[F::Htt, F::Sse3, F::Monitor, F::Ssse3, F::Cx16, F::Lahf64, F::ArchCaps]));
/// What a virtual machine of today has beside the instruction set.
const PLATFORM: Features = Features::of(&[
    F::Pcid,
    F::X2apic,
    F::TscDeadline,
    F::Hypervisor,
    F::Arat,
    F::Fsgsbase,
    F::TscAdjust,
    F::Smep,
    F::Erms,
    F::Invpcid,
    F::Smap,
    F::Umip,
    F::ArchCaps,
    F::Pdpe1gb,
    F::Rdtscp,
    F::InvariantTsc,
    F::Prefetchw,
    F::Lahf64,
    F::Cx16,
    F::Htt,
]);
const V1: Features = P6.and(PLATFORM);
const V2: Features = V1.and(Features::of(&[F::Popcnt, F::Sse3, F::Ssse3, F::Sse41, F::Sse42]));
const V3: Features = V2.and(Features::of(&[
    F::Avx,
    F::Avx2,
    F::Bmi1,
    F::Bmi2,
    F::F16c,
    F::Fma,
    F::Lzcnt,
    F::Movbe,
    F::Xsave,
    F::Xsaveopt,
    F::Xsavec,
    F::Xgetbv1,
    F::Xsaves,
    F::Aes,
    F::Pclmulqdq,
    F::Sha,
    F::Vaes,
    F::Vpclmulqdq,
    F::Adx,
    F::Rdrand,
    F::Rdseed,
    F::Clflushopt,
    F::Clwb,
    F::Wbnoinvd,
    F::Rdpid,
    F::Pku,
    F::Fsrm,
    F::FcsFds,
]));

/// Family 6, model 1Ch, stepping 10: an Atom that executes in order. See `emulator/cpu/src/functions/cpuid.rs`.
const ATOM: u32 = 0x0001_06ca;

/// The base models, from the oldest on; the last is the default.
pub const BASES: &[Base] = &[
    base("8086", "Intel 8086 of 1978; +fpu adds an 8087", Generation::I8086, 0, Features::NONE),
    base("286", "Intel 80286; +fpu adds an 80287", Generation::I286, 0, Features::of(&[F::I186, F::I286])),
    base("386", "Intel 80386; +fpu adds an 80387", Generation::I386, 0x308, I386),
    base("486", "Intel DX4 with its FPU", Generation::I486, 0x480, I486),
    base("pentium", "Intel Pentium (P54C)", Generation::Pentium, 0x52c, PENTIUM),
    base("core2", "Intel Core 2 (Merom): 64-bit, SSSE3", Generation::Current, 0x6fb, CORE2),
    base("x86-64-v1", "the x86-64 baseline: SSE2", Generation::Current, ATOM, V1),
    base("x86-64-v2", "SSE4.2, POPCNT, CMPXCHG16B", Generation::Current, ATOM, V2),
    base("x86-64-v3", "AVX2, BMI, FMA and what a cloud machine of today has besides", Generation::Current, ATOM, V3),
];

const fn base(name: &'static str, about: &'static str, generation: Generation, signature: u32, features: Features) -> Base {
    Base { name, about, generation, signature, features }
}

impl Base {
    /// The features that it should have.
    #[must_use]
    pub fn wanted(&self) -> Features {
        self.features
    }

    /// Its features, as far as Egret has them.
    #[must_use]
    pub fn features(&self) -> Features {
        self.features.without(Features::of(NOT_YET))
    }
}

/// A CPU model: a base with features added and taken away.
#[derive(Clone, Copy)]
pub struct CpuModel {
    base: &'static Base,
    features: Features,
}

/// Text that names no model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// The first word is no base model.
    #[error("'{0}' is no CPU model: there are {names}", names = names())]
    Base(String),
    /// A later word has no sign.
    #[error("'{0}' is neither +FEATURE nor -FEATURE")]
    Sign(String),
    /// There is no such feature.
    #[error("'{0}' is no CPU feature; `egret cpus` lists them")]
    Feature(String),
    /// There is such a feature, but not here.
    #[error("the CPU feature '{0}' is not implemented")]
    NotImplemented(&'static str),
    /// One feature does not go without another.
    #[error("'{0}' needs '{1}'")]
    Needs(&'static str, &'static str),
}

fn names() -> String {
    BASES.iter().map(|b| b.name).collect::<Vec<_>>().join(", ")
}

/// Features that do not go without another.
const NEEDS: &[(Feature, Feature)] = &[
    (F::Sse, F::Fxsr),
    (F::Sse2, F::Sse),
    (F::Sse3, F::Sse2),
    (F::Ssse3, F::Sse3),
    (F::Sse41, F::Ssse3),
    (F::Sse42, F::Sse41),
    (F::Sse4a, F::Sse3),
    (F::Aes, F::Sse2),
    (F::Pclmulqdq, F::Sse2),
    (F::Sha, F::Sse2),
    (F::Avx, F::Xsave),
    (F::Avx, F::Sse42),
    (F::Avx2, F::Avx),
    (F::Fma, F::Avx),
    (F::F16c, F::Avx),
    (F::Vaes, F::Avx),
    (F::Vpclmulqdq, F::Avx),
    (F::Xsave, F::Fxsr),
    (F::Xsaveopt, F::Xsave),
    (F::Xsavec, F::Xsave),
    (F::Xsaves, F::Xsavec),
    (F::Pku, F::Xsave),
    (F::Mmx, F::Fpu),
    (F::Fxsr, F::Fpu),
    (F::Lm, F::Sse2),
    (F::Lm, F::Pae),
    (F::Lm, F::Nx),
    (F::La57, F::Lm),
    (F::X2apic, F::Apic),
    (F::Pcid, F::Lm),
];

impl CpuModel {
    /// A base model by name.
    #[must_use]
    pub fn named(name: &str) -> Option<CpuModel> {
        BASES.iter().find(|b| b.name == name).map(|base| CpuModel { base, features: base.features() })
    }

    /// The base model.
    #[must_use]
    pub fn base(&self) -> &'static Base {
        self.base
    }

    /// Its habits.
    #[inline]
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.base.generation
    }

    /// Its features.
    #[inline]
    #[must_use]
    pub fn features(&self) -> Features {
        self.features
    }

    /// Whether it has a feature.
    #[inline]
    #[must_use]
    pub fn has(&self, feature: Feature) -> bool {
        self.features.has(feature)
    }

    /// With these features and no others. For test benches: nothing is checked.
    #[must_use]
    pub fn with_features(self, features: Features) -> CpuModel {
        CpuModel { features, ..self }
    }

    fn change(&mut self, word: &str) -> Result<(), ModelError> {
        let (add, name) = match (word.strip_prefix('+'), word.strip_prefix('-')) {
            (Some(name), _) => (true, name),
            (_, Some(name)) => (false, name),
            _ => return Err(ModelError::Sign(word.to_owned())),
        };
        let feature = Feature::parse(name).ok_or_else(|| ModelError::Feature(name.to_owned()))?;
        if add && !feature.implemented() {
            return Err(ModelError::NotImplemented(feature.word()));
        }
        self.features = if add { self.features.with(feature) } else { self.features.without(Features::of(&[feature])) };
        Ok(())
    }
}

impl Default for CpuModel {
    fn default() -> CpuModel {
        let base = &BASES[BASES.len() - 1];
        CpuModel { base, features: base.features() }
    }
}

impl PartialEq for CpuModel {
    fn eq(&self, other: &CpuModel) -> bool {
        self.base.name == other.base.name && self.features == other.features
    }
}

impl Eq for CpuModel {}

impl FromStr for CpuModel {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<CpuModel, ModelError> {
        let mut words = text.split(',').map(str::trim);
        let name = words.next().unwrap_or_default();
        let mut model = CpuModel::named(name).ok_or_else(|| ModelError::Base(name.to_owned()))?;
        for word in words {
            model.change(word)?;
        }
        for (feature, needed) in NEEDS {
            if model.has(*feature) && !model.has(*needed) {
                return Err(ModelError::Needs(feature.word(), needed.word()));
            }
        }
        Ok(model)
    }
}

impl fmt::Display for CpuModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.base.name)?;
        let had = self.base.features();
        for added in self.features.without(had).iter() {
            write!(f, ",+{}", added.word())?;
        }
        for missing in had.without(self.features).iter() {
            write!(f, ",-{}", missing.word())?;
        }
        Ok(())
    }
}

impl fmt::Debug for CpuModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::Code;

    #[test]
    fn words_go_both_ways() {
        for text in ["8086", "286,+fpu", "pentium", "x86-64-v2", "x86-64-v3,+sse4a,-sha", "core2,-monitor"] {
            match text.parse::<CpuModel>() {
                Ok(model) => assert_eq!(model.to_string().parse(), Ok(model), "{text}"),
                Err(ModelError::NotImplemented(_)) => {}
                Err(e) => panic!("{text}: {e}"),
            }
        }
        assert_eq!(CpuModel::default().to_string(), "x86-64-v3");
        assert_eq!("x86-64-v2,-popcnt".parse::<CpuModel>().unwrap().to_string(), "x86-64-v2,-popcnt");
    }

    #[test]
    fn mistakes() {
        for (text, want) in [
            ("", "'' is no CPU model: there are 8086, 286, "),
            ("i7", "'i7' is no CPU model"),
            ("486,popcnt", "'popcnt' is neither +FEATURE nor -FEATURE"),
            ("486,+turbo", "'turbo' is no CPU feature"),
            ("486,+", "'' is no CPU feature"),
            ("x86-64-v2,+gfni", "'gfni' is not implemented"),
            ("x86-64-v1,-sse", "'sse2' needs 'sse'"),
        ] {
            let error = text.parse::<CpuModel>().expect_err(text).to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    #[test]
    fn numbers_are_places_in_the_table() {
        assert!(ROWS.len() < 128);
        for (n, row) in ROWS.iter().enumerate() {
            assert_eq!(row.feature as usize, n, "{:?}", row.feature);
        }
        let places: Vec<_> = ROWS.iter().filter_map(|r| r.place).collect();
        assert!(places.iter().enumerate().all(|(n, p)| !places[..n].contains(p)));
    }

    #[test]
    fn encodings_need_features() {
        for (model, code, want) in [
            ("8086", Code::Add_rm16_r16, true),
            ("8086", Code::Pushaw, false),
            ("286", Code::Pushaw, true),
            ("286", Code::Bsf_r16_rm16, false),
            ("386", Code::Bsf_r16_rm16, true),
            ("386", Code::Fsin, true),
            ("386,+fpu", Code::Fsin, true),
            ("286,+fpu", Code::Fsin, false),
            ("486", Code::Cmpxchg8b_m64, false),
            ("pentium", Code::Cmpxchg8b_m64, true),
            ("x86-64-v1", Code::Pshufb_xmm_xmmm128, false),
            ("core2", Code::Pshufb_xmm_xmmm128, true),
            ("x86-64-v3", Code::EVEX_Vaddps_zmm_k1z_zmm_zmmm512b32_er, false),
        ] {
            assert_eq!(model.parse::<CpuModel>().unwrap().features().allows(code), want, "{model} {code:?}");
        }
    }
}
