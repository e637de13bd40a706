//! W3, registers: each write is a value of its own, and a counter goes up by compare-and-set.
//!
//! What a client read at a snapshot may be old when it compares: then it is rejected. At the end the counter is exactly
//! the number of increments that were committed and not lost, and each of them began where the one before ended. It
//! refuses to judge the order of reads: the history checker does.

use super::end::{End, Notes};
use crate::client::{Came, Client};
use crate::game::Tally;
use driftmesh_model::Ref;
use driftmesh_object_store::Fate;
use driftmesh_peer::session::Isolation;
use std::sync::Arc;

const REGISTERS: usize = 3;

/// The registers of a run.
#[derive(Clone)]
pub(crate) struct Registers {
    /// The count of each is the token of whoever wrote it.
    registers: Arc<[Ref<Tally>]>,
    counter: Ref<Tally>,
    /// From where increments went.
    increments: Notes<u64>,
}

impl Registers {
    pub(super) async fn create(client: &mut Client) -> Option<Self> {
        let make = |maker: super::Maker| async move {
            let mut registers = Vec::new();
            for _ in 0..REGISTERS {
                let mut register = Tally::default();
                let token = maker.log.create(&mut register);
                register.count = register.token;
                let reference = maker.tx.create(&register)?;
                maker.log.created(reference, token);
                registers.push(reference);
            }
            Ok((registers, maker.create(Tally::default())?))
        };
        let (registers, counter) = client.make("create registers", make).await?;
        Some(Self { registers: registers.into(), counter, increments: Notes::default() })
    }

    pub(super) fn judge(&self, end: &mut End<'_>) {
        for register in self.registers.iter() {
            let Some(Tally { token, count }) = end.value(*register) else { return };
            if token != count {
                end.wrong.push(format!("register {register} is {count}, and was written by {token}"));
            }
        }
        let Some(Tally { count, .. }) = end.value(self.counter) else { return };
        let (mut from, mut open) = (Vec::new(), 0);
        for (fate, seen) in self.increments.with_fates(end.fates) {
            match fate {
                Fate::Stable => from.push(seen),
                Fate::Unknown => open += 1,
                Fate::Lost => {}
            }
        }
        from.sort_unstable();
        let is_right = if open == 0 {
            from.iter().copied().eq(0..count)
        } else {
            let least = from.len() as u64;
            (least..=least + open).contains(&count)
        };
        if !is_right {
            end.wrong.push(format!("the counter is {count}; it went up from {from:?}, and {open} times perhaps"));
        }
    }
}

impl Client {
    pub(super) async fn use_registers(&mut self, registers: &Registers) -> Came {
        match self.rng.u8(..6) {
            0 => self.write_register(registers).await,
            1 => self.read_registers(registers).await,
            _ => self.count_up(registers).await,
        }
    }

    /// Reads one register, and writes one.
    async fn write_register(&mut self, registers: &Registers) -> Came {
        let seen = registers.registers[self.rng.usize(..REGISTERS)];
        let written = registers.registers[self.rng.usize(..REGISTERS)];
        let think = self.think();
        let world = self.world.clone();
        self.run("write register", move |tx, log| {
            let world = world.clone();
            async move {
                let read = tx.get(seen).await?;
                log.saw(seen, &*read);
                think.pause(&world).await;
                let mut register = tx.get_mut(written).await?;
                log.change(&mut register);
                register.count = register.token;
                Ok(())
            }
        })
        .await
    }

    /// Reads all registers at one snapshot.
    async fn read_registers(&mut self, registers: &Registers) -> Came {
        let Some(mut look) = self.look("read registers") else { return Came::Nothing };
        for register in registers.registers.iter() {
            let Some(value) = look.first_sees(*register).await else { break };
            if value.token != value.count {
                look.wrong(format!("sees {} in register {register}, written by {}", value.count, value.token));
            }
        }
        look.end().map_or(Came::Nothing, |_| Came::Committed)
    }

    /// Adds one to the counter if it is still as it was read before.
    async fn count_up(&mut self, registers: &Registers) -> Came {
        let counter = registers.counter;
        let Some(mut look) = self.look("read counter") else { return Came::Nothing };
        let seen = look.first_sees(counter).await.map(|value| value.count);
        look.end();
        let Some(seen) = seen else { return Came::Nothing };
        let think = self.think();
        think.pause(&self.world).await;
        let done = self.run_with_receipt("compare and set", Isolation::Snapshot, move |tx, log| async move {
            let mut value = tx.get_mut(counter).await?;
            if value.count != seen {
                return Err(tx.reject("somebody was faster"));
            }
            log.change(&mut value);
            value.count += 1;
            Ok(())
        });
        match done.await {
            Ok((_, number)) => {
                registers.increments.note(number, seen);
                Came::Committed
            }
            Err(came) => came,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::end::{judged, numbered};
    use super::*;

    fn wrong(count: u64, increments: &[(Fate, u64)]) -> usize {
        let registers = Registers { registers: [].into(), counter: numbered(1), increments: Notes::default() };
        increments.iter().enumerate().for_each(|(number, (_, from))| registers.increments.note(number, *from));
        let fates: Vec<Fate> = increments.iter().map(|(fate, _)| *fate).collect();
        judged(&[Tally { token: 1, count }], &fates, |end| registers.judge(end)).len()
    }

    #[test]
    fn the_counter_is_its_increments_that_were_not_lost() {
        assert_eq!(wrong(2, &[(Fate::Stable, 0), (Fate::Lost, 1), (Fate::Stable, 1)]), 0);
        assert_eq!(wrong(2, &[(Fate::Stable, 0), (Fate::Unknown, 1)]), 0);
        assert_eq!(wrong(1, &[(Fate::Stable, 0), (Fate::Stable, 1)]), 1, "an increment is missing");
        assert_eq!(wrong(2, &[(Fate::Stable, 0), (Fate::Lost, 1)]), 1, "what was lost counts");
        assert_eq!(wrong(2, &[(Fate::Stable, 0), (Fate::Stable, 0)]), 1, "two from the same");
    }
}
