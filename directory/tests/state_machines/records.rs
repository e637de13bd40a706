//! Hints and home records: they only climb (R2), and the least recently used one goes (R24).

use crate::{OBJECTS, cases, object, record};
use driftmesh_directory::{Record, Records};
use proptest::prelude::*;
use std::num::NonZeroUsize;

#[derive(Clone, Debug)]
enum Step {
    Learn(u8, u8),
    Get(u8),
    Forget(u8, u8),
    ForgetAll(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (object, epoch) = (|| 0..2 * OBJECTS, || 0..6_u8);
    let step = prop_oneof![
        4 => (object(), epoch()).prop_map(|(object, epoch)| Step::Learn(object, epoch)),
        2 => object().prop_map(Step::Get),
        1 => (object(), epoch()).prop_map(|(object, epoch)| Step::Forget(object, epoch)),
        1 => object().prop_map(Step::ForgetAll),
    ];
    prop::collection::vec(step, 1..100)
}

/// The record of an object, which becomes the one that was used last.
fn used(known: &mut Vec<Record>, number: u8) -> Option<&mut Record> {
    let at = known.iter().position(|record| record.object == object(number))?;
    let record = known.remove(at);
    known.push(record);
    known.last_mut()
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn they_climb_and_the_least_recently_used_one_goes(bound in 1..6_usize, steps in steps()) {
        let mut records = Records::new(NonZeroUsize::new(bound).unwrap());
        // The one that was used last is the last.
        let mut known: Vec<Record> = Vec::new();
        for step in steps {
            match step {
                Step::Learn(number, epoch) => {
                    let said = record(number, epoch);
                    let is_news = match used(&mut known, number) {
                        Some(record) if record.epoch >= said.epoch => false,
                        Some(record) => {
                            *record = said;
                            true
                        }
                        None => {
                            known.push(said);
                            true
                        }
                    };
                    if known.len() > bound {
                        known.remove(0);
                    }
                    prop_assert_eq!(records.learn(said), is_news);
                }
                Step::Get(number) => {
                    let expected = used(&mut known, number).copied();
                    prop_assert_eq!(records.get(object(number)), expected);
                }
                Step::Forget(number, epoch) => {
                    let claim = record(number, epoch);
                    known.retain(|known| known.object != claim.object || known.epoch > claim.epoch);
                    records.forget_up_to(&claim);
                }
                Step::ForgetAll(number) => {
                    known.retain(|known| known.object != object(number));
                    records.forget(object(number));
                }
            }
            prop_assert_eq!((records.len(), records.is_empty()), (known.len(), known.is_empty()));
        }
        for record in known {
            prop_assert_eq!(records.get(record.object), Some(record));
        }
    }
}
