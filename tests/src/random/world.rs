//! The machine around the CPU: ports and MMIO that answer by rule, or a PC's board.

use crate::rng::Rng;
use egret_bus::{Phys, Shared, shared};
use egret_cpu::System;
use egret_machine::ClockSource;
use egret_machine::pc::{Board, BoardSystem, Parts};
use std::hash::{DefaultHasher, Hash, Hasher};

/// What the CPU did outside itself, and what comes from there.
#[derive(Default)]
pub struct World {
    /// A digest of every access in order, but for reads of memory: code may be read ahead, and more than once.
    pub digest: u64,
    /// Accesses so far.
    pub accesses: u64,
    /// The vector that INTR will bring, while it is asserted.
    pub interrupt: Option<u8>,
    /// An NMI is pending.
    pub nmi: bool,
    /// Time-stamp counter.
    pub tsc: u64,
}

impl World {
    fn note(&mut self, what: impl Hash) {
        let mut hasher = DefaultHasher::new();
        (self.digest, what).hash(&mut hasher);
        self.digest = hasher.finish();
        self.accesses += 1;
    }

    fn answer(&mut self, what: impl Hash) -> u64 {
        self.note(what);
        Rng::new(self.digest).next()
    }
}

/// The CPU's way to it.
pub struct Around {
    /// The rules and the digest.
    pub world: Shared<World>,
    /// The board, and whether it is used.
    board: BoardSystem,
    on: Shared<bool>,
}

/// The bench's side of [`Around`].
pub struct Outside {
    /// The rules and the digest.
    pub world: Shared<World>,
    board: Shared<Board>,
    on: Shared<bool>,
}

/// Both ends.
pub fn outside(memory: u64) -> (Around, Outside) {
    let parts = Parts { serial: Box::new(|_| {}), start_time: 1_704_067_200, clock: ClockSource::Instructions, memory };
    let board = egret_bus::shared(Board::new(parts).expect("the parts list is right"));
    let world = shared(World::default());
    let on = shared(false);
    (Around { world: world.clone(), board: BoardSystem::new(&board, 0), on: on.clone() }, Outside { world, board, on })
}

impl Outside {
    /// Starts anew, with the board or with the rules.
    pub fn reset(&mut self, board: bool, rng: &mut Rng) {
        *self.world.lock() =
            World { interrupt: rng.one_in(4).then(|| rng.next() as u8), nmi: rng.one_in(32), tsc: rng.next() >> 8, ..World::default() };
        *self.on.lock() = board;
        if board {
            self.board.lock().reset();
        }
    }

    /// Lets time pass on the board: a millisecond.
    pub fn pass_time(&mut self) {
        if *self.on.lock() {
            let mut board = self.board.lock();
            board.clock().retire(1_000_000);
            board.tick();
            // Power-off, reset, debug exit: all are fine to ask for.
            while board.take_event().is_some() {}
        }
    }
}

impl System for Around {
    fn port_read(&mut self, port: u16, size: u8) -> u32 {
        let value = self.world.lock().answer((0, port, size)) as u32;
        if *self.on.lock() { self.board.port_read(port, size) } else { value }
    }

    fn port_write(&mut self, port: u16, size: u8, value: u32) {
        self.world.lock().note((1, port, size, value));
        if *self.on.lock() {
            self.board.port_write(port, size, value);
        }
    }

    fn mmio_read(&mut self, addr: Phys, size: u8) -> u64 {
        if *self.on.lock() { self.board.mmio_read(addr, size) } else { Rng::new(addr.0).next() >> (64 - 8 * size.clamp(1, 8)) }
    }

    fn mmio_write(&mut self, addr: Phys, size: u8, value: u64) {
        self.world.lock().note((3, addr.0, size, value));
        if *self.on.lock() {
            self.board.mmio_write(addr, size, value);
        }
    }

    fn interrupt_pending(&mut self) -> bool {
        if *self.on.lock() { self.board.interrupt_pending() } else { self.world.lock().interrupt.is_some() }
    }

    fn acknowledge(&mut self) -> Option<u8> {
        if *self.on.lock() { self.board.acknowledge() } else { self.world.lock().interrupt.take() }
    }

    fn take_nmi(&mut self) -> bool {
        if *self.on.lock() { self.board.take_nmi() } else { std::mem::take(&mut self.world.lock().nmi) }
    }

    fn tsc(&mut self) -> u64 {
        let mut world = self.world.lock();
        world.tsc = world.tsc.wrapping_add(17);
        world.tsc
    }

    fn apic_read(&mut self, msr: u32) -> Option<u64> {
        let value = self.world.lock().answer((4, msr));
        if *self.on.lock() { self.board.apic_read(msr) } else { (!value.is_multiple_of(3)).then_some(value) }
    }

    fn apic_write(&mut self, msr: u32, value: u64) -> bool {
        let ok = !self.world.lock().answer((5, msr, value)).is_multiple_of(3);
        if *self.on.lock() { self.board.apic_write(msr, value) } else { ok }
    }

    fn task_priority(&mut self) -> u8 {
        if *self.on.lock() { self.board.task_priority() } else { self.world.lock().answer(6) as u8 & 15 }
    }

    fn set_task_priority(&mut self, value: u8) {
        self.world.lock().note((7, value));
        if *self.on.lock() {
            self.board.set_task_priority(value);
        }
    }

    fn set_ferr(&mut self, level: bool) {
        self.world.lock().note((8, level));
    }

    fn wants_attention(&mut self) -> bool {
        *self.on.lock() && self.board.wants_attention()
    }
}
