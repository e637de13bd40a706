//! W18, crossings: travellers stream from zone to zone, by tasks. A traveller and both zones are changed, and the zones count.
//!
//! A traveller is in exactly one zone, the one that it says itself, and each zone has as many as its counters say, at every
//! snapshot and at the end. It refuses to let travellers come and go.

use super::Maker;
use super::end::End;
use super::task_calls::{Requests, SimTask, counts};
use crate::client::{Came, Client, SimTx};
use driftmesh_model::{Object, ObjectId, Ref, Value, decode_object};
use driftmesh_peer::session::Result;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const ZONES: usize = 3;
const TRAVELLERS: usize = 7;

/// Somebody who crosses.
#[derive(Clone, Serialize, Deserialize, Debug)]
struct Traveller {
    zone: Ref<Zone>,
    crossings: Vec<u64>,
}

impl Object for Traveller {
    const TYPE_NAME: &'static str = "traveller";
}

/// A zone, and who is in it.
#[derive(Clone, Default, Serialize, Deserialize, Debug)]
struct Zone {
    members: Vec<Ref<Traveller>>,
    entered: u64,
    left: u64,
}

impl Object for Zone {
    const TYPE_NAME: &'static str = "zone";
}

/// Whether a value is of this workload.
pub(super) fn is_of_crossing(value: &Value) -> bool {
    decode_object::<Traveller>(value).is_ok() || decode_object::<Zone>(value).is_ok()
}

/// A traveller goes from the zone where it is to another.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub(super) struct Cross {
    number: u64,
    traveller: Ref<Traveller>,
    to: Ref<Zone>,
}

impl SimTask for Cross {
    const NAME: &'static str = "cross";

    fn number(&self) -> u64 {
        self.number
    }

    fn touches(&self) -> Vec<ObjectId> {
        vec![self.traveller.id(), self.to.id()]
    }

    async fn run(&self, tx: &SimTx) -> Result<u64> {
        let mut traveller = tx.get_mut(self.traveller).await?;
        let from = traveller.zone;
        if from == self.to {
            return Err(tx.reject("it is there"));
        }
        let mut left = tx.get_mut(from).await?;
        let mut entered = tx.get_mut(self.to).await?;
        left.members.retain(|member| *member != self.traveller);
        left.left += 1;
        entered.members.push(self.traveller);
        entered.entered += 1;
        traveller.zone = self.to;
        traveller.crossings.push(self.number);
        Ok(tx.random())
    }
}

/// The zones of a run. Clones share it.
#[derive(Clone)]
pub(crate) struct Border {
    zones: Arc<[Ref<Zone>]>,
    travellers: Arc<[Ref<Traveller>]>,
    requests: Requests<Cross>,
}

impl Border {
    pub(super) async fn create(client: &mut Client) -> Option<Self> {
        let make = |maker: Maker| async move {
            let (mut zones, mut travellers) = (Vec::new(), Vec::new());
            for number in 0..ZONES {
                let reference = maker.tx.create(&Zone::default())?;
                let mut zone = Zone::default();
                for _ in (number..TRAVELLERS).step_by(ZONES) {
                    zone.members.push(maker.tx.create(&Traveller { zone: reference, crossings: Vec::new() })?);
                }
                zone.entered = zone.members.len() as u64;
                maker.tx.put(reference, &zone).await?;
                travellers.extend(zone.members);
                zones.push(reference);
            }
            Ok((zones, travellers))
        };
        let (zones, travellers) = client.make("create zones", make).await?;
        Some(Self { zones: zones.into(), travellers: travellers.into(), requests: Requests::default() })
    }

    pub(super) fn judge(&self, end: &mut End<'_>) {
        let (Some(zones), Some(travellers)) = (end.values(&self.zones), end.values(&self.travellers)) else { return };
        let wrong = self.misplaced(&zones, &travellers);
        end.wrong.extend(wrong.into_iter().map(|text| format!("at the end {text}")));
        let made = counts(travellers.iter().flat_map(|traveller| &traveller.crossings));
        self.requests.judge("crossing", &made, end);
    }

    /// Travellers that are not in exactly the zone that they say, and zones that have counted otherwise.
    fn misplaced(&self, zones: &[Zone], travellers: &[Traveller]) -> Vec<String> {
        let mut wrong = Vec::new();
        for (reference, traveller) in self.travellers.iter().zip(travellers) {
            let there =
                self.zones.iter().zip(zones).flat_map(|(zone, value)| {
                    value.members.iter().filter(|member| *member == reference).map(|_| *zone)
                });
            let there: Vec<Ref<Zone>> = there.collect();
            if there != [traveller.zone] {
                wrong.push(format!("traveller {reference} says {}, and is in {there:?}", traveller.zone));
            }
        }
        for (reference, zone) in self.zones.iter().zip(zones) {
            let Zone { entered, left, members } = zone;
            if entered.checked_sub(*left) != Some(members.len() as u64) {
                wrong.push(format!("{entered} entered zone {reference} and {left} left, {} are there", members.len()));
            }
        }
        wrong
    }
}

impl Client {
    /// Sends a traveller across, or asks about a crossing that has no certain answer; now and then everything is looked at.
    pub(super) async fn use_border(&mut self, border: &Border) -> Came {
        if self.rng.u8(..6) == 0 {
            return self.see_border(border).await;
        }
        let new = |client: &mut Self, requests: &Requests<Cross>| {
            let traveller = border.travellers[client.rng.usize(..TRAVELLERS)];
            let to = border.zones[client.rng.usize(..ZONES)];
            Cross { number: requests.number(), traveller, to }
        };
        self.use_requests(&border.requests, new).await
    }

    async fn see_border(&mut self, border: &Border) -> Came {
        let Some(mut look) = self.look("see zones") else { return Came::Nothing };
        if let Some(zones) = look.see_all_of_tasks(&border.zones).await
            && let Some(travellers) = look.see_all_of_tasks(&border.travellers).await
        {
            let wrong = border.misplaced(&zones, &travellers);
            wrong.into_iter().for_each(|text| look.wrong(format!("sees zones in which {text}")));
        }
        look.end().map_or(Came::Nothing, |_| Came::Committed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::end::numbered;
    use super::*;

    #[test]
    fn a_traveller_is_in_the_one_zone_that_it_says_and_zones_count() {
        let border = Border {
            zones: [numbered(1), numbered(2)].into(),
            travellers: [numbered(3)].into(),
            requests: Requests::default(),
        };
        let traveller = Traveller { zone: numbered(1), crossings: Vec::new() };
        let misplaced = |there: [bool; 2], entered: [u64; 2]| {
            let members = there.map(|there| there.then(|| numbered(3)).into_iter().collect());
            let [first, second] = members;
            let zones = [
                Zone { members: first, entered: entered[0], left: 0 },
                Zone { members: second, entered: entered[1], left: 0 },
            ];
            border.misplaced(&zones, std::slice::from_ref(&traveller)).len()
        };
        assert_eq!(misplaced([true, false], [1, 0]), 0);
        assert_eq!(misplaced([false, true], [0, 1]), 1, "it is elsewhere");
        assert_eq!(misplaced([true, true], [1, 1]), 1, "it is in two zones");
        assert_eq!(misplaced([false, false], [0, 0]), 1, "it is nowhere");
        assert_eq!(misplaced([true, false], [2, 0]), 1, "the counters differ");
    }
}
