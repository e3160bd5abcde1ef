//! What the benches share: machines that run a workload, and the peers on PATH.
#![forbid(unsafe_code)]

pub mod peers;

use egret_cpu::Engine;
use egret_guests::workloads::Workload;
use egret_isa::CpuModel;
use egret_machine::boot::Unpack;
use egret_machine::pc::Parts;
use egret_machine::{ClockSource, Config, Image, Machine, Stop};
use std::time::Duration;

/// Memory of every machine and peer.
pub const MEMORY: u64 = 64 << 20;
/// 1 January 2024, 00:00 UTC.
const START: i64 = 1_704_067_200;

/// A machine about to run `workload`.
///
/// # Panics
/// When it cannot be made: a bench without its machine is none.
#[must_use]
pub fn machine(workload: &Workload, engine: Box<dyn Engine>) -> Machine {
    let parts = Parts { serial: Box::new(|_| {}), start_time: START, clock: ClockSource::Host, memory: MEMORY };
    let image = Image {
        kernel_name: workload.name.to_owned(),
        kernel: workload.image.clone(),
        initrd: None,
        cmdline: String::new(),
        unpack: Unpack::Host,
        unpacked: None,
    };
    let config = Config { memory: MEMORY, parts, image, engine, cpu: CpuModel::default() };
    Machine::new(config, None).expect("the workload boots").0
}

/// Runs a machine to the workload's end.
///
/// # Panics
/// When it ends otherwise.
pub fn finish(machine: &mut Machine) {
    let stop = machine.run(Some(Duration::from_secs(600)));
    assert_eq!(stop, Stop::DebugExit(0), "the workload did not end");
}
