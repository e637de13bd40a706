//! Telling homes: whatever is lost, doubled or late, each home ends with the newest record of each object, and what counts
//! as told was told.

use crate::{OBJECTS, cases, object, peer, record};
use driftmesh_directory::{Publisher, Record};
use driftmesh_model::{Micros, ObjectId, PeerId};
use proptest::prelude::*;
use std::collections::BTreeMap;

const HOMES: u8 = 3;
/// Longer than anything waits for its repetition.
const LONG: Micros = Micros(1_000_000);

#[derive(Clone, Debug)]
enum Step {
    Publish(u8, u8, u8),
    /// Time passes, milliseconds, and what is due is sent; some of it arrives.
    Send(u16, u8),
    /// A message that was ever sent arrives now.
    Arrive(usize),
    /// An acknowledgement that was ever sent arrives now.
    Acknowledge(usize),
    Gone(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (0..HOMES, 0..OBJECTS, 0..9_u8).prop_map(|(home, object, epoch)| Step::Publish(home, object, epoch)),
        4 => (0..800_u16, any::<u8>()).prop_map(|(millis, arrives)| Step::Send(millis, arrives)),
        3 => any::<usize>().prop_map(Step::Arrive),
        3 => any::<usize>().prop_map(Step::Acknowledge),
        1 => (0..HOMES).prop_map(Step::Gone),
    ];
    prop::collection::vec(step, 1..80)
}

#[derive(Default)]
struct Run {
    publisher: Publisher,
    now: Micros,
    /// The highest epoch that each home is to be told of each object.
    owed: BTreeMap<(PeerId, ObjectId), Record>,
    sent: Vec<(PeerId, u64, Vec<Record>)>,
    acknowledged: Vec<(PeerId, u64)>,
    /// What each home has.
    homes: BTreeMap<(PeerId, ObjectId), Record>,
}

fn climb(known: &mut BTreeMap<(PeerId, ObjectId), Record>, at: PeerId, record: Record) {
    let known = known.entry((at, record.object)).or_insert(record);
    *known = if record.epoch > known.epoch { record } else { *known };
}

impl Run {
    fn arrive(&mut self, number: usize) {
        let Some((home, batch, records)) = self.sent.get(number).cloned() else { return };
        for record in records {
            climb(&mut self.homes, home, record);
        }
        self.acknowledged.push((home, batch));
    }

    fn acknowledge(&mut self, number: usize) -> Result<(), TestCaseError> {
        let Some((home, batch)) = self.acknowledged.get(number).copied() else { return Ok(()) };
        for record in self.publisher.acknowledged(&home, batch) {
            let held = self.homes.get(&(home, record.object));
            prop_assert!(held.is_some_and(|held| held.epoch >= record.epoch), "{:?} was not told {:?}", home, record);
        }
        Ok(())
    }

    fn send(&mut self, millis: u16) -> std::ops::Range<usize> {
        self.now = self.now.plus(Micros::from_millis(u64::from(millis)));
        let from = self.sent.len();
        self.sent.extend(self.publisher.due(self.now));
        from..self.sent.len()
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Publish(home, number, epoch) => {
                prop_assert!(self.publisher.publish(peer(home), record(number, epoch)));
                climb(&mut self.owed, peer(home), record(number, epoch));
            }
            Step::Send(millis, arrives) => {
                for number in self.send(millis) {
                    if arrives & (1 << (number % 8)) != 0 {
                        self.arrive(number);
                    }
                }
            }
            Step::Arrive(number) => self.arrive(number % self.sent.len().max(1)),
            Step::Acknowledge(number) => self.acknowledge(number % self.acknowledged.len().max(1))?,
            Step::Gone(home) => {
                self.publisher.forget(&peer(home));
                self.owed.retain(|(of, _), _| *of != peer(home));
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn each_home_ends_with_the_newest_record(steps in steps()) {
        let mut run = Run::default();
        for step in &steps {
            run.step(step)?;
        }
        // Now everything arrives.
        for _ in 0..4 {
            run.now = run.now.plus(LONG);
            for number in run.send(0) {
                run.arrive(number);
                run.acknowledge(run.acknowledged.len() - 1)?;
            }
        }
        prop_assert!(run.publisher.is_idle());
        for ((home, object), owed) in &run.owed {
            let held = run.homes.get(&(*home, *object));
            prop_assert!(held.is_some_and(|held| held.epoch >= owed.epoch), "{:?} of {:?}: {:?}", home, owed, held);
        }
    }
}

#[test]
fn it_never_sends_a_home_two_batches_at_once() {
    let mut publisher = Publisher::default();
    assert!(publisher.publish(peer(1), record(0, 1)) && publisher.publish(peer(1), record(1, 1)));
    assert_eq!(publisher.due(Micros(0)).len(), 1);
    assert!(publisher.publish(peer(1), record(2, 1)));
    assert!(publisher.due(Micros(1)).is_empty());
    assert_eq!(publisher.acknowledged(&peer(1), 1).len(), 2);
    let due = publisher.due(Micros(2));
    assert_eq!(
        due.iter().map(|(_, number, records)| (*number, records[0].object)).collect::<Vec<_>>(),
        [(2, object(2))]
    );
}
