//! Forwarding pointers: they climb (R2), and each stays until all its homes said, after they were asked about what it says
//! now, that they know as much (R3).

use crate::{OBJECTS, cases, object, peer, record};
use driftmesh_directory::{Pointers, Record};
use driftmesh_model::{Micros, ObjectId, PeerId};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const HOMES: u8 = 4;

#[derive(Clone, Debug)]
enum Step {
    /// An object leaves, at an epoch.
    Set(u8, u8),
    Undo(u8, u8),
    Compress(u8, u8),
    Forget(u8),
    /// Those set so many milliseconds ago are due, so many at most; the homes of each, or none could be asked.
    Due(u16, usize, Vec<Option<Vec<u8>>>),
    Confirmed(u8, Vec<(u8, u8)>),
    HomeGone(u8),
    Wait(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (object, epoch) = (|| 0..OBJECTS, || 0..9_u8);
    let both = move || (object(), epoch());
    let homes = proptest::option::weighted(0.8, prop::collection::vec(0..HOMES, 0..3));
    let step = prop_oneof![
        6 => both().prop_map(|(object, epoch)| Step::Set(object, epoch)),
        1 => both().prop_map(|(object, epoch)| Step::Undo(object, epoch)),
        2 => both().prop_map(|(object, epoch)| Step::Compress(object, epoch)),
        1 => both().prop_map(|(object, _)| Step::Forget(object)),
        5 => (0..60_u16, 0..5_usize, prop::collection::vec(homes, 5))
            .prop_map(|(age, most, homes)| Step::Due(age, most, homes)),
        6 => (0..HOMES, prop::collection::vec(both(), 1..4)).prop_map(|(home, records)| Step::Confirmed(home, records)),
        1 => (0..HOMES).prop_map(Step::HomeGone),
        2 => (0..40_u16).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..100)
}

/// A pointer, without regard to memory and speed.
#[derive(Clone, Debug)]
struct Model {
    record: Record,
    /// What it said before, until its departure is known to be true.
    former: Option<Record>,
    /// The homes that have not confirmed it; `None` until they are asked.
    asked: Option<BTreeSet<PeerId>>,
}

#[derive(Default)]
struct Run {
    pointers: Pointers,
    model: BTreeMap<ObjectId, Model>,
    /// Those whose homes were not asked, in the order in which they are.
    queue: Vec<(Micros, ObjectId)>,
    now: Micros,
}

impl Run {
    fn queue(&mut self, object: ObjectId, set_at: Micros) {
        self.unqueue(object);
        self.queue.push((set_at, object));
    }

    fn unqueue(&mut self, object: ObjectId) {
        self.queue.retain(|(_, other)| *other != object);
    }

    fn remove(&mut self, object: ObjectId) {
        self.model.remove(&object);
        self.unqueue(object);
    }

    fn set(&mut self, record: Record) {
        let former = self.model.get(&record.object).map(|model| model.record);
        if former.is_none_or(|former| record.epoch > former.epoch) {
            let model = self.model.remove(&record.object);
            let former = former.or_else(|| model.and_then(|model| model.former));
            self.model.insert(record.object, Model { record, former, asked: None });
            self.queue(record.object, self.now);
        }
        self.pointers.set(record, self.now);
    }

    fn undo(&mut self, departure: Record) {
        let said = self.model.get(&departure.object).cloned();
        if let Some(model) = said.filter(|model| model.record == departure) {
            self.remove(departure.object);
            if let Some(record) = model.former {
                self.model.insert(departure.object, Model { record, former: None, asked: None });
                self.queue(departure.object, self.now);
            }
        }
        self.pointers.undo(&departure, self.now);
    }

    fn compress(&mut self, further: Record) -> Result<(), TestCaseError> {
        let known = self.model.get_mut(&further.object).filter(|model| further.epoch > model.record.epoch);
        let is_news = known.is_some();
        if let Some(model) = known {
            model.record = further;
            if model.asked.take().is_some() {
                self.queue(further.object, Micros(0));
            }
        }
        prop_assert_eq!(self.pointers.compress(&further), is_news);
        Ok(())
    }

    fn due(&mut self, age: u16, most: usize, homes: &[Option<Vec<u8>>]) -> Result<(), TestCaseError> {
        let before = Micros(self.now.0.saturating_sub(u64::from(age) * 1_000));
        let count = self.queue.iter().take(most).take_while(|(set_at, _)| *set_at <= before).count();
        let taken: Vec<ObjectId> = self.queue.drain(..count).map(|(_, object)| object).collect();
        let expected: Vec<Record> = taken.iter().map(|object| self.model[object].record).collect();
        prop_assert_eq!(self.pointers.due(before, most), expected);
        for (object, homes) in taken.into_iter().zip(homes) {
            match homes {
                None => {
                    self.queue(object, Micros(0));
                    self.pointers.not_asked(object);
                }
                Some(homes) => {
                    let homes: BTreeSet<PeerId> = homes.iter().map(|home| peer(*home)).collect();
                    self.pointers.asked(object, homes.clone());
                    if homes.is_empty() {
                        self.model.remove(&object);
                    } else if let Some(model) = self.model.get_mut(&object) {
                        (model.asked, model.former) = (Some(homes), None);
                    }
                }
            }
        }
        Ok(())
    }

    fn confirmed(&mut self, home: u8, said: &[(u8, u8)]) -> Result<(), TestCaseError> {
        let records: Vec<Record> = said.iter().map(|(number, epoch)| record(*number, *epoch)).collect();
        let mut gone = Vec::new();
        for record in &records {
            let Some(model) = self.model.get_mut(&record.object).filter(|model| record.epoch >= model.record.epoch)
            else {
                continue;
            };
            let Some(asked) = &mut model.asked else { continue };
            asked.remove(&peer(home));
            if asked.is_empty() {
                gone.push(model.record);
                self.model.remove(&record.object);
            }
        }
        prop_assert_eq!(self.pointers.confirmed(&peer(home), &records), gone);
        Ok(())
    }

    fn home_gone(&mut self, home: u8) {
        let waits = |model: &Model| model.asked.as_ref().is_some_and(|asked| asked.contains(&peer(home)));
        let objects: Vec<ObjectId> =
            self.model.iter().filter(|(_, model)| waits(model)).map(|(object, _)| *object).collect();
        for object in objects {
            if let Some(model) = self.model.get_mut(&object) {
                model.asked = None;
            }
            self.queue(object, Micros(0));
        }
        self.pointers.home_gone(&peer(home));
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Set(number, epoch) => self.set(record(*number, *epoch)),
            Step::Undo(number, epoch) => self.undo(record(*number, *epoch)),
            Step::Compress(number, epoch) => self.compress(record(*number, *epoch))?,
            Step::Forget(number) => {
                self.remove(object(*number));
                self.pointers.forget(object(*number));
            }
            Step::Due(age, most, homes) => self.due(*age, *most, homes)?,
            Step::Confirmed(home, records) => self.confirmed(*home, records)?,
            Step::HomeGone(home) => self.home_gone(*home),
            Step::Wait(millis) => self.now = self.now.plus(Micros::from_millis(u64::from(*millis))),
        }
        for number in 0..OBJECTS {
            let expected = self.model.get(&object(number)).map(|model| model.record);
            prop_assert_eq!(self.pointers.get(object(number)), expected);
        }
        prop_assert_eq!((self.pointers.len(), self.pointers.is_empty()), (self.model.len(), self.model.is_empty()));
        Ok(())
    }
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn they_stay_until_all_homes_know_as_much(steps in steps()) {
        let mut run = Run::default();
        for step in &steps {
            run.step(step)?;
        }
    }
}
