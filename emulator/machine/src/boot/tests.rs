//! Small synthetic images of every kind, whole and broken.

use super::layout::{self, MapKind};
use super::*;
use egret_bus::{GuestRam, Phys};
use std::io::{Read, Write};

const MIB: u64 = 1 << 20;

fn ram(bytes: u64) -> GuestRam {
    GuestRam::new(&layout::ram_regions(bytes)).unwrap()
}

fn blob<'a>(name: &'a str, data: &'a [u8]) -> Blob<'a> {
    Blob { name, data }
}

fn bytes(ram: &GuestRam, at: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    assert!(ram.read(Phys(at), &mut out), "{at:#x}");
    out
}

fn word(ram: &GuestRam, at: u64) -> u64 {
    ram.load(Phys(at), 4).unwrap()
}

fn cstr(ram: &GuestRam, at: u64) -> String {
    (at..).map(|a| ram.load(Phys(a), 1).unwrap() as u8).take_while(|&b| b != 0).map(char::from).collect()
}

fn boot(ram: &GuestRam, kernel: &[u8], initrd: Option<&[u8]>, cmdline: &str, unpack: Unpack) -> Result<Loaded, BootError> {
    let image = BootImage { kernel: blob("vmlinuz", kernel), initrd: initrd.map(|d| blob("initrd.img", d)), cmdline };
    load(ram, &image, BootOptions { unpack, ..BootOptions::default() })
}

/// A segment for [`elf`]: program header type, physical address, bytes, length in memory.
type Seg<'a> = (u32, u64, &'a [u8], u64);

const LOAD: u32 = 1;
const NOTE: u32 = 4;

/// An ELF file with its segments one after the other from offset 0x200.
fn elf(is64: bool, entry: u64, segments: &[Seg]) -> Vec<u8> {
    let machine: u16 = if is64 { 62 } else { 3 };
    let (header_len, ph_len) = if is64 { (64u16, 56u16) } else { (52, 32) };
    let mut f = vec![0x7f, b'E', b'L', b'F', if is64 { 2 } else { 1 }, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let word = |f: &mut Vec<u8>, v: u64| f.extend(&v.to_le_bytes()[..if is64 { 8 } else { 4 }]);
    f.extend(2u16.to_le_bytes());
    f.extend(machine.to_le_bytes());
    f.extend(1u32.to_le_bytes());
    word(&mut f, entry);
    word(&mut f, header_len.into());
    word(&mut f, 0);
    f.extend(0u32.to_le_bytes());
    for v in [header_len, ph_len, segments.len() as u16, 0, 0, 0] {
        f.extend(v.to_le_bytes());
    }
    let mut offset = 0x200u64;
    for &(kind, phys, data, len) in segments {
        f.extend(kind.to_le_bytes());
        if is64 {
            f.extend(7u32.to_le_bytes());
        }
        for v in [offset, phys | if is64 { 0xffff_ffff_8000_0000 } else { 0 }, phys, data.len() as u64, len] {
            word(&mut f, v);
        }
        if !is64 {
            f.extend(7u32.to_le_bytes());
        }
        word(&mut f, 4);
        offset += data.len() as u64;
    }
    f.resize(0x200, 0);
    for s in segments {
        f.extend(s.2);
    }
    f
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Pack {
    Plain,
    Gzip,
    Bzip2,
    Lzma,
    Xz,
    Lz4,
    Zstd,
    Lzo,
}

/// Packs as the kernel's build does: the size goes behind the stream, except that gzip ends with it by itself.
fn pack(how: Pack, data: &[u8]) -> Vec<u8> {
    use liblzma::stream::{Check, Filters, LzmaOptions, Stream};
    let options = LzmaOptions::new_preset(6).unwrap();
    let lzma = |stream| {
        let mut out = Vec::new();
        liblzma::read::XzEncoder::new_stream(data, stream).read_to_end(&mut out).unwrap();
        out
    };
    let mut out = match how {
        Pack::Plain => data.to_vec(),
        Pack::Gzip => {
            let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            e.write_all(data).unwrap();
            return e.finish().unwrap();
        }
        Pack::Bzip2 => {
            let mut e = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
            e.write_all(data).unwrap();
            e.finish().unwrap()
        }
        Pack::Lzma => lzma(Stream::new_lzma_encoder(&options).unwrap()),
        Pack::Xz => lzma(Stream::new_stream_encoder(Filters::new().x86().lzma2(&options), Check::Crc32).unwrap()),
        Pack::Lz4 => {
            let mut out = 0x184c_2102u32.to_le_bytes().to_vec();
            for block in data.chunks(8 << 20) {
                let packed = lz4_flex::block::compress(block);
                out.extend((packed.len() as u32).to_le_bytes());
                out.extend(packed);
            }
            out
        }
        Pack::Zstd => ruzstd::encoding::compress_to_vec(data, ruzstd::encoding::CompressionLevel::Fastest),
        Pack::Lzo => b"\x89LZO\0\r\n\x1a\n and so on".to_vec(),
    };
    out.extend((data.len() as u32).to_le_bytes());
    out
}

/// A bzImage of boot protocol `version` around `payload`, with entry code at 0 and at 0x200 of the protected-mode part.
fn bzimage(version: u16, xloadflags: u16, payload: &[u8]) -> Vec<u8> {
    const PAYLOAD_AT: usize = 0x400;
    let setup_sectors = 2;
    let mut f = vec![0u8; 512 * (setup_sectors + 1)];
    let mut code = vec![0x90; PAYLOAD_AT];
    code.extend(payload);
    code.resize(code.len().next_multiple_of(16), 0);
    let mut put = |at: usize, b: &[u8]| f[at..at + b.len()].copy_from_slice(b);
    put(0, b"MZ");
    put(0x1f1, &[setup_sectors as u8]);
    put(0x1f4, &(code.len() as u32 / 16).to_le_bytes());
    put(0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
    put(0x202, b"HdrS");
    put(0x206, &version.to_le_bytes());
    put(0x20e, &0x200u16.to_le_bytes());
    put(0x211, &[1]);
    put(0x214, &0x10_0000u32.to_le_bytes());
    put(0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(0x230, &0x20_0000u32.to_le_bytes());
    put(0x234, &[1, 21]);
    put(0x236, &xloadflags.to_le_bytes());
    put(0x238, &2047u32.to_le_bytes());
    put(0x248, &(PAYLOAD_AT as u32).to_le_bytes());
    put(0x24c, &(payload.len() as u32).to_le_bytes());
    put(0x258, &0x100_0000u64.to_le_bytes());
    put(0x260, &0x20_0000u32.to_le_bytes());
    put(0x400, b"6.1.0-test (me@here)\0");
    f.extend(code);
    f
}

/// Something that packs well, but not to nothing.
fn program(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 27) as u8).collect()
}

fn vmlinux(text: &[u8]) -> Vec<u8> {
    elf(true, 0x100_0010, &[(LOAD, 0x100_0000, text, text.len() as u64), (LOAD, 0x160_0000, b"data", 0x5000)])
}

fn cpio() -> Vec<u8> {
    let mut f = Vec::new();
    for (name, data) in [("init", &b"#!/bin/sh\n"[..]), ("TRAILER!!!", b"")] {
        let mut h = String::from("070701");
        for v in [1, 0o100_755, 0, 0, 1, 0, data.len(), 0, 0, 0, 0, name.len() + 1, 0] {
            h += &format!("{v:08x}");
        }
        f.extend(h.bytes().chain(name.bytes()).chain([0]));
        f.resize(f.len().next_multiple_of(4), 0);
        f.extend(data);
        f.resize(f.len().next_multiple_of(4), 0);
    }
    f
}

#[test]
fn linux_payloads_of_every_format_are_unpacked_to_their_segments() {
    let text = program(300_000);
    for how in [Pack::Plain, Pack::Gzip, Pack::Bzip2, Pack::Lzma, Pack::Xz, Pack::Lz4, Pack::Zstd] {
        let ram = ram(64 * MIB);
        assert!(ram.store(Phys(0x160_1000), 8, u64::MAX), "left over from before");
        let kernel = bzimage(0x20f, 1, &pack(how, &vmlinux(&text)));
        let loaded = boot(&ram, &kernel, None, "", Unpack::Host).unwrap_or_else(|e| panic!("{how:?}: {e}"));
        assert_eq!(loaded.protocol, Protocol::Linux64, "{how:?}");
        assert_eq!(loaded.entry.rip, 0x100_0010);
        assert!(bytes(&ram, 0x100_0000, text.len()) == text, "{how:?}");
        assert_eq!(bytes(&ram, 0x160_0000, 6), b"data\0\0");
        assert_eq!(word(&ram, 0x160_1000), 0, "bss is cleared");
    }
}

#[test]
fn linux_gets_command_line_initrd_memory_map_and_acpi() {
    let ram = ram(64 * MIB);
    let initrd = cpio();
    let kernel = bzimage(0x20f, 1, &pack(Pack::Gzip, &vmlinux(&program(5000))));
    let loaded = boot(&ram, &kernel, Some(&initrd), "console=ttyS0 x", Unpack::Host).unwrap();
    assert_eq!(loaded.version.as_deref(), Some("6.1.0-test (me@here)"));
    let page = loaded.entry.gpr[gpr::RSI];
    assert_eq!(bytes(&ram, page + 0x202, 4), b"HdrS");
    assert_eq!(cstr(&ram, word(&ram, page + 0x228)), "console=ttyS0 x");
    assert_eq!(word(&ram, page + 0x21c), initrd.len() as u64);
    assert_eq!(word(&ram, page + 0x218), 64 * MIB - 0x1000, "as high as it goes");
    assert_eq!(bytes(&ram, word(&ram, page + 0x218), initrd.len()), initrd);
    assert_eq!(ram.load(Phys(page + 0x70), 8), Some(layout::RSDP));
    assert_eq!(ram.load(Phys(page + 0x210), 1), Some(0xff), "loader type");
    let entries = ram.load(Phys(page + 0x1e8), 1).unwrap();
    let map: Vec<_> = (0..entries).map(|i| page + 0x2d0 + 20 * i).map(|at| [0, 8].map(|o| ram.load(Phys(at + o), 8).unwrap())).collect();
    assert_eq!(map[0], [0, layout::EBDA]);
    assert!(map.contains(&[MIB, 63 * MIB]));
}

#[test]
fn long_mode_entry_has_identity_page_tables_and_a_descriptor_table() {
    let ram = ram(64 * MIB);
    let kernel = bzimage(0x20f, 1, &pack(Pack::Gzip, &vmlinux(&program(5000))));
    let e = boot(&ram, &kernel, None, "", Unpack::Host).unwrap().entry;
    assert_eq!((e.mode, e.cr0, e.cr4, e.efer, e.rflags), (Mode::Long64, 0x8000_0011, 0x20, 0x500, 2));
    for linear in [0u64, 0x1_2345_6789 & 0xffff_ffff, 0xffff_fff0] {
        let load = |at| ram.load(Phys(at), 8).unwrap();
        let pdpt = load(e.cr3 + 8 * (linear >> 39));
        let directory = load((pdpt & !0xfff) + 8 * (linear >> 30));
        let page = load((directory & !0xfff) + 8 * (linear >> 21 & 511));
        assert_eq!((pdpt & 3, directory & 3, page & 0x83), (3, 3, 0x83));
        assert_eq!((page & !0x1f_ffff) + (linear & 0x1f_ffff), linear);
    }
    let descriptor = |s: Segment| ram.load(Phys(e.gdt_base + u64::from(s.selector)), 8).unwrap();
    assert_eq!(descriptor(e.cs), 0x00af_9b00_0000_ffff);
    assert_eq!(descriptor(e.data), 0x00cf_9300_0000_ffff);
    assert_eq!((e.cs.selector, e.data.selector, e.cs.attributes), (0x10, 0x18, 0xa09b));
    assert!(u64::from(e.tr.selector) + 15 <= e.gdt_limit.into());
}

#[test]
fn self_unpacking_takes_the_entry_that_the_image_has() {
    let payload = pack(Pack::Lzo, &vmlinux(b"x"));
    let rows: [(u16, u16, Protocol, u64); 4] = [
        (0x20f, 1, Protocol::LinuxSelfUnpack64, 0x100_0200),
        (0x20f, 0, Protocol::LinuxSelfUnpack32, 0x100_0000),
        (0x20b, 1, Protocol::LinuxSelfUnpack32, 0x100_0000),
        (0x204, 1, Protocol::LinuxSelfUnpack32, 0x10_0000),
    ];
    for (version, xloadflags, protocol, rip) in rows {
        let ram = ram(64 * MIB);
        let kernel = bzimage(version, xloadflags, &payload);
        let loaded = boot(&ram, &kernel, None, "", Unpack::Guest).unwrap();
        assert_eq!((loaded.protocol, loaded.entry.rip), (protocol, rip), "{version:#x}");
        let code = &kernel[512 * 3..];
        assert_eq!(bytes(&ram, rip & !0xfff, code.len()), code);
        assert_eq!(loaded.entry.mode == Mode::Long64, protocol == Protocol::LinuxSelfUnpack64);
    }
}

#[test]
fn images_without_a_findable_payload_unpack_themselves() {
    let kernel = bzimage(0x207, 0, &pack(Pack::Gzip, &vmlinux(b"x")));
    assert_eq!(boot(&ram(64 * MIB), &kernel, None, "", Unpack::Host).unwrap().protocol, Protocol::LinuxSelfUnpack32);
}

#[test]
fn a_32_bit_kernel_is_entered_in_protected_mode() {
    let text = program(1000);
    let kernel = bzimage(0x20f, 0, &pack(Pack::Xz, &elf(false, 0x100_0000, &[(LOAD, 0x100_0000, &text, 1000)])));
    let ram = ram(64 * MIB);
    let e = boot(&ram, &kernel, None, "", Unpack::Host).unwrap();
    assert_eq!((e.protocol, e.entry.mode, e.entry.cr0), (Protocol::Linux32, Mode::Protected32, 0x11));
    assert_eq!(bytes(&ram, e.entry.gpr[gpr::RSI] + 0x202, 4), b"HdrS");
}

#[test]
fn progress_ends_at_the_total() {
    let elf = vmlinux(&program(3 << 20));
    let kernel = bzimage(0x20f, 1, &pack(Pack::Gzip, &elf));
    let mut seen = Vec::new();
    let image = BootImage { kernel: blob("k", &kernel), initrd: None, cmdline: "" };
    let mut note = |p| seen.push(p);
    load(&ram(64 * MIB), &image, BootOptions { progress: Some(&mut note), ..BootOptions::default() }).unwrap();
    assert!(seen.len() >= 3 && seen.windows(2).all(|w| w[0].done < w[1].done), "{seen:?}");
    assert!(seen.iter().all(|p| p.total == elf.len() as u64 && p.done <= p.total));
}

fn pvh_note(entry: u32) -> Vec<u8> {
    let mut n = Vec::new();
    for v in [4u32, 4, 18] {
        n.extend(v.to_le_bytes());
    }
    n.extend(b"Xen\0");
    n.extend(entry.to_le_bytes());
    n
}

fn pvh_kernel(is64: bool) -> Vec<u8> {
    let text = program(2000);
    elf(is64, 0, &[(LOAD, 0x10_0000, &text, 0x3000), (NOTE, 0, &pvh_note(0x10_0040), 20)])
}

#[test]
fn pvh_kernels_get_their_start_info() {
    for is64 in [false, true] {
        let ram = ram(32 * MIB);
        let loaded = boot(&ram, &pvh_kernel(is64), Some(b"any bytes"), "a b", Unpack::Host).unwrap();
        assert_eq!((loaded.protocol, loaded.entry.mode, loaded.entry.rip), (Protocol::Pvh, Mode::Protected32, 0x10_0040));
        let info = loaded.entry.gpr[gpr::RBX];
        assert_eq!((word(&ram, info), word(&ram, info + 4), word(&ram, info + 12)), (0x336e_c578, 1, 1));
        assert_eq!(cstr(&ram, word(&ram, info + 24)), "a b");
        assert_eq!(word(&ram, info + 32), layout::RSDP);
        let module = word(&ram, info + 16);
        assert_eq!(word(&ram, module + 8), 9);
        assert_eq!(bytes(&ram, word(&ram, module), 9), b"any bytes");
        let (map, entries) = (word(&ram, info + 40), word(&ram, info + 48));
        let usable: u64 = (0..entries).map(|i| map + 24 * i).filter(|&e| word(&ram, e + 16) == 1).map(|e| word(&ram, e + 8)).sum();
        let want: u64 = layout::memory_map(ram.regions()).iter().filter(|e| e.kind == MapKind::Usable).map(|e| e.len).sum();
        assert_eq!(usable, want);
    }
}

fn multiboot_header(flags: u32, addresses: &[u32]) -> Vec<u8> {
    let magic = 0x1bad_b002u32;
    let sum = 0u32.wrapping_sub(magic).wrapping_sub(flags);
    [magic, flags, sum].iter().chain(addresses).flat_map(|w| w.to_le_bytes()).collect()
}

/// A flat image with its header at 0x10, loaded at 1 MiB, with 0x100 bytes of bss.
fn flat_multiboot() -> Vec<u8> {
    let mut f = vec![0x90; 0x10];
    f.extend(multiboot_header(1 << 16 | 3, &[0x10_0010, 0x10_0000, 0, 0x10_1100, 0x10_0004]));
    f.resize(0x1000, 0xcc);
    f
}

#[test]
fn multiboot_kernels_get_their_information() {
    let mut text = multiboot_header(3, &[]);
    text.resize(0x800, 0xcc);
    let elves = [false, true].map(|is64| elf(is64, 0x10_0020, &[(LOAD, 0x10_0000, &text, 0x2000)]));
    for (kernel, rip) in [(&elves[0], 0x10_0020), (&elves[1], 0x10_0020), (&flat_multiboot(), 0x10_0004)] {
        let ram = ram(16 * MIB);
        let loaded = boot(&ram, kernel, Some(b"module"), "one two", Unpack::Host).unwrap();
        assert_eq!((loaded.protocol, loaded.entry.mode, loaded.entry.rip), (Protocol::Multiboot, Mode::Protected32, rip));
        assert_eq!(loaded.entry.gpr[gpr::RAX], 0x2bad_b002);
        let info = loaded.entry.gpr[gpr::RBX];
        assert_eq!(word(&ram, info), 0x24d);
        assert_eq!((word(&ram, info + 4), word(&ram, info + 8)), (639, 15 * 1024));
        assert_eq!(cstr(&ram, word(&ram, info + 16)), "one two");
        let module = word(&ram, info + 24);
        let (start, end) = (word(&ram, module), word(&ram, module + 4));
        assert_eq!((word(&ram, info + 20), start % 4096, bytes(&ram, start, (end - start) as usize)), (1, 0, b"module".to_vec()));
        assert_eq!(cstr(&ram, word(&ram, module + 8)), "initrd.img");
        let (len, map) = (word(&ram, info + 44), word(&ram, info + 48));
        assert_eq!((len % 24, word(&ram, map), word(&ram, map + 12), word(&ram, map + 20)), (0, 20, layout::EBDA, 1));
        assert_eq!(cstr(&ram, word(&ram, info + 64)), "Egret");
    }
}

#[test]
fn a_multiboot_kernel_may_take_all_low_memory() {
    let text = multiboot_header(3, &[]);
    let kernel = elf(false, 0x1000, &[(LOAD, 0x1000, &text, 0x9ec00)]);
    let loaded = boot(&ram(16 * MIB), &kernel, None, "x", Unpack::Host).unwrap();
    assert!(loaded.entry.gpr[gpr::RBX] > MIB);
}

/// What the error must say; kernel; initrd; MiB of memory.
type BrokenRow = (&'static str, Vec<u8>, Option<Vec<u8>>, u64);

#[test]
fn broken_images_are_refused_in_one_line_that_names_the_file() {
    let good = bzimage(0x20f, 1, &pack(Pack::Xz, &vmlinux(&program(100_000))));
    let edit = |at: usize, b: &[u8]| {
        let mut f = good.clone();
        f[at..at + b.len()].copy_from_slice(b);
        f
    };
    let payload_at = 512 * 3 + 0x400;
    let packed = |how| bzimage(0x20f, 1, &pack(how, &vmlinux(&program(100_000))));
    let mut big_claim = pack(Pack::Gzip, &vmlinux(b"x"));
    let n = big_claim.len();
    big_claim[n - 4..].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
    let gz = pack(Pack::Gzip, &cpio());
    let mut bad_gz = gz.clone();
    bad_gz[n.min(gz.len() / 2)] ^= 0x55;
    let bomb = pack(Pack::Gzip, &vec![0; 20 << 20]);
    let plain = elf(true, 0x10_0000, &[(LOAD, 0x10_0000, b"x", 1)]);
    let rows: Vec<BrokenRow> = vec![
        ("vmlinuz: the file is empty", vec![], None, 16),
        ("vmlinuz: not a kernel", program(3000), None, 16),
        ("vmlinuz: not a kernel", b"x".to_vec(), None, 16),
        ("vmlinuz: truncated: the setup header", good[..100].to_vec(), None, 16),
        ("vmlinuz: truncated: the kernel", good[..0x400].to_vec(), None, 16),
        ("vmlinuz: truncated: the kernel", good[..good.len() - 1000].to_vec(), None, 16),
        ("older than boot protocol 2.00", edit(0x206, &[0, 1]), None, 16),
        ("zImage", edit(0x211, &[0]), None, 16),
        ("damaged: the payload lies outside", edit(0x248, &[0, 0, 0, 1]), None, 64),
        ("packed as something unknown (it starts with 01 02 03 04)", edit(payload_at, &[1, 2, 3, 4]), None, 64),
        ("packed as lzo, which the host cannot unpack", packed(Pack::Lzo), None, 64),
        ("vmlinuz: the kernel payload (xz) cannot be unpacked", edit(payload_at + 200, &[1, 2, 3, 4]), None, 64),
        ("vmlinuz: the unpacked kernel of 2147483647 bytes does not fit in memory of", bzimage(0x20f, 1, &big_claim), None, 64),
        ("vmlinuz: kernel does not fit: 20480 bytes at 0x1600000", good.clone(), None, 18),
        ("vmlinuz: an ELF file with neither", plain, None, 16),
        ("vmlinuz: not supported: the multiboot header asks for a video mode", multiboot_header(4, &[]), None, 16),
        ("vmlinuz: not supported: the multiboot header requires", multiboot_header(8, &[]), None, 16),
        ("gives no addresses and the file is not ELF", multiboot_header(0, &[]), None, 16),
        ("vmlinuz: truncated: the multiboot header", multiboot_header(1 << 16, &[0; 3]), None, 16),
        ("vmlinuz: truncated: a segment", pvh_kernel(true)[..0x300].to_vec(), None, 16),
        ("initrd.img: the file is empty", good.clone(), Some(vec![]), 64),
        ("initrd.img: not an initrd", good.clone(), Some(b"hello".to_vec()), 64),
        ("initrd.img: truncated: a cpio entry", good.clone(), Some(cpio()[..150].to_vec()), 64),
        ("initrd.img: the initrd (gzip) cannot be unpacked", good.clone(), Some(gz[..gz.len() - 5].to_vec()), 64),
        ("initrd.img: the initrd (gzip) cannot be unpacked", good.clone(), Some(bad_gz), 64),
        ("initrd.img: the initrd (gzip) cannot be unpacked: it unpacks to more than", good.clone(), Some(bomb), 20),
        ("initrd.img: initrd of", good.clone(), Some([cpio(), vec![0; 40 << 20]].concat()), 32),
    ];
    for (want, kernel, initrd, mib) in rows {
        let error = boot(&ram(mib * MIB), &kernel, initrd.as_deref(), "", Unpack::Host).expect_err(want).to_string();
        assert!(error.contains(want), "{error:?} does not say {want:?}");
        assert!(!error.contains('\n') && error.len() < 250, "{error:?}");
    }
}

#[test]
fn command_lines_over_the_limit_are_refused() {
    let kernel = bzimage(0x20f, 1, &pack(Pack::Gzip, &vmlinux(b"xxxxxxxxxxxxxxxxxxxxxxxxx")));
    assert!(boot(&ram(64 * MIB), &kernel, None, &"x".repeat(2047), Unpack::Host).is_ok());
    let error = boot(&ram(64 * MIB), &kernel, None, &"x".repeat(2048), Unpack::Host).unwrap_err();
    assert_eq!(error.to_string(), "vmlinuz: the command line has 2048 bytes, this kernel takes 2047");
}

#[test]
fn a_zstd_window_that_would_eat_the_host_is_refused() {
    // A frame header with a window of 2^41 bytes, then run-length blocks.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 31 << 3];
    frame.extend([0x02, 0x00, 0x10, 0].repeat(1000));
    frame.extend(0x10_0000u32.to_le_bytes());
    let error = boot(&ram(64 * MIB), &bzimage(0x20f, 1, &frame), None, "", Unpack::Host).unwrap_err();
    assert!(error.to_string().contains("window of 2199023255552 bytes"), "{error}");
}

/// A small generator for the mutations (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n.max(1)
    }
}

#[test]
fn no_mutation_of_an_image_panics() {
    const ROUNDS: usize = 400;
    let text = program(2000);
    let all = [Pack::Plain, Pack::Gzip, Pack::Bzip2, Pack::Lzma, Pack::Xz, Pack::Lz4, Pack::Zstd];
    let mut images: Vec<Vec<u8>> = all.iter().map(|&how| bzimage(0x20f, 1, &pack(how, &vmlinux(&text)))).collect();
    let mut elf_multiboot = multiboot_header(3, &[]);
    elf_multiboot.resize(0x400, 0xcc);
    images.extend([pvh_kernel(false), pvh_kernel(true), flat_multiboot()]);
    images.extend([false, true].map(|is64| elf(is64, 0x10_0020, &[(LOAD, 0x10_0000, &elf_multiboot, 0x2000)])));
    let initrds = [cpio(), pack(Pack::Gzip, &cpio()), [cpio(), pack(Pack::Zstd, &cpio())].concat()];
    let ram = ram(24 * MIB);
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut outcomes = [0, 0];
    for round in 0..ROUNDS * images.len() {
        let mut kernel = images[round % images.len()].clone();
        let mut initrd = initrds[round % initrds.len()].clone();
        mutate(&mut random, &mut kernel);
        if round % 3 == 0 {
            mutate(&mut random, &mut initrd);
        }
        let unpack = if round % 5 == 0 { Unpack::Guest } else { Unpack::Host };
        outcomes[usize::from(boot(&ram, &kernel, Some(&initrd), "x", unpack).is_ok())] += 1;
    }
    assert!(outcomes.iter().all(|&n| n > 100), "the mutations should leave some whole and break some: {outcomes:?}");
}

/// Flips some bytes, half of the time in the headers; at times cuts the end off or puts an extreme value into a word.
fn mutate(random: &mut Random, data: &mut Vec<u8>) {
    for _ in 0..=random.below(4) {
        let range = if random.below(2) == 0 { data.len().min(0x300) } else { data.len() };
        let at = random.below(range);
        match random.below(8) {
            0 => data.truncate(at),
            1..=3 => {
                let extreme = [0, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX - 1, u32::MAX][random.below(6)];
                if let Some(word) = data.get_mut(at & !3..).and_then(|d| d.first_chunk_mut::<4>()) {
                    *word = extreme.to_le_bytes();
                }
            }
            _ => {
                if let Some(byte) = data.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
        }
    }
}
