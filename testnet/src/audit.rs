//! Counting a world: what was met in a scan of every owner, against the totals that were created.
//!
//! It knows nothing but the totals. It refuses to talk to peers, and to explain away what does not add up.

use crate::accounts::PlayerEnd;
use crate::world::{Item, Player, Totals};
use driftmesh::{NameBucket, Object, ObjectId, Ref, Value, decode_object};
use driftmesh_model::stored_header;
use driftmesh_sim::dump::{Register, Series};
use std::collections::BTreeMap;

/// Faults of one kind that are told in full; the others are only counted.
const EXAMPLES_MAX: usize = 3;

/// A kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Fault {
    /// There is not as much gold as was created.
    Gold,
    /// There are not as many items as were created.
    Items,
    /// There are not as many players as were created.
    Players,
    /// An object was met more than once: at two owners, or twice at one.
    MetAgain,
    /// An item is in more than one inventory, or twice in one.
    InTwoInventories,
    /// An item is in no inventory.
    InNoInventory,
    /// An inventory names an item that was not met.
    Dangling,
    /// An item names another holder than the player in whose inventory it is.
    WrongHolder,
    /// An object is of no type of this world, or does not decode.
    UnknownType,
    /// What a workload demands of each snapshot does not hold.
    Invariant,
}

/// What a count came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Findings {
    /// The gold of all players that were met.
    pub(crate) gold: u64,
    /// How many items were met.
    pub(crate) items: u64,
    /// Objects met more than once, and items in more than one inventory.
    pub(crate) duplicates: u64,
    /// Players and items met at each owner.
    pub(crate) owned: BTreeMap<String, u64>,
    /// How each player stands.
    pub(crate) players: BTreeMap<ObjectId, PlayerEnd>,
    /// How many faults of each kind.
    pub(crate) faults: BTreeMap<Fault, u64>,
    /// The faults, for people: each kind with a few examples.
    pub(crate) told: Vec<String>,
}

/// A count that is going on.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    findings: Findings,
    /// At whose peer each object was met first.
    met: BTreeMap<ObjectId, String>,
    players: u64,
    inventories: Vec<(ObjectId, Vec<Ref<Item>>)>,
    holders: BTreeMap<ObjectId, Ref<Player>>,
}

/// What kind of object was met.
enum Counted {
    /// A player or an item.
    OfTheWorld,
    /// A directory bucket: each mesh has them, and the founder keeps those that nobody uses. Or a list or a register, of
    /// which a history is dumped.
    Beside,
}

impl Tally {
    /// Counts one object, met at `owner`.
    pub(crate) fn meet(&mut self, owner: &str, object: ObjectId, value: &Value) {
        if let Some(before) = self.met.get(&object) {
            let told = format!("object {object} was met at {before} and again at {owner}");
            self.findings.duplicates += 1;
            self.findings.fault(Fault::MetAgain, 1, || told);
        } else {
            self.met.insert(object, owner.to_owned());
        }
        match self.count(object, value) {
            Ok(Counted::OfTheWorld) => *self.findings.owned.entry(owner.to_owned()).or_default() += 1,
            Ok(Counted::Beside) => {}
            Err(reason) => {
                self.findings.fault(Fault::UnknownType, 1, || format!("object {object} at {owner}: {reason}"));
            }
        }
    }

    fn count(&mut self, object: ObjectId, value: &Value) -> Result<Counted, String> {
        let header = stored_header(value).map_err(|error| error.to_string())?;
        if header.type_name == Player::TYPE_NAME {
            let player: Player = decode_object(value).map_err(|error| error.to_string())?;
            self.players += 1;
            self.findings.gold = self.findings.gold.saturating_add(player.gold);
            let Player { trades, sum, gold, .. } = player;
            let end = PlayerEnd { trades, sum, gold, items: player.inventory.len() as u64 };
            self.findings.players.insert(object, end);
            self.inventories.push((object, player.inventory));
        } else if header.type_name == Item::TYPE_NAME {
            let item: Item = decode_object(value).map_err(|error| error.to_string())?;
            self.findings.items += 1;
            self.holders.insert(object, item.holder);
        } else if [NameBucket::TYPE_NAME, Series::TYPE_NAME, Register::TYPE_NAME].contains(&&*header.type_name) {
            return Ok(Counted::Beside);
        } else {
            return Err(format!("it is a `{}`, which this world does not have", header.type_name));
        }
        Ok(Counted::OfTheWorld)
    }

    /// Ends the count.
    pub(crate) fn judge(mut self, created: Totals) -> Findings {
        let mut places: BTreeMap<ObjectId, Vec<ObjectId>> = BTreeMap::new();
        for (player, inventory) in &self.inventories {
            for item in inventory {
                places.entry(item.id()).or_default().push(*player);
            }
        }
        for (item, players) in &places {
            self.judge_item(*item, players);
        }
        for item in self.holders.keys().filter(|item| !places.contains_key(item)) {
            self.findings.fault(Fault::InNoInventory, 1, || format!("item {item} is in no inventory"));
        }
        let (gold, items) = (self.findings.gold, self.findings.items);
        self.findings.total(Fault::Gold, "gold", gold, created.gold);
        self.findings.total(Fault::Items, "items", items, created.items);
        self.findings.total(Fault::Players, "players", self.players, created.players);
        self.findings.tell_counts();
        self.findings
    }

    fn judge_item(&mut self, item: ObjectId, players: &[ObjectId]) {
        if let [first, others @ ..] = players
            && !others.is_empty()
        {
            self.findings.duplicates += 1;
            let told = || format!("item {item} is in the inventories of {first} and {others:?}");
            self.findings.fault(Fault::InTwoInventories, 1, told);
        }
        let Some(holder) = self.holders.get(&item) else {
            self.findings.fault(Fault::Dangling, 1, || format!("{players:?} has item {item}, which was not met"));
            return;
        };
        for player in players.iter().filter(|player| **player != holder.id()) {
            let told = || format!("item {item} is in the inventory of {player}, but names {holder} as its holder");
            self.findings.fault(Fault::WrongHolder, 1, told);
        }
    }
}

impl Findings {
    /// Notes faults of one kind, with an example.
    pub(crate) fn fault(&mut self, fault: Fault, times: u64, told: impl FnOnce() -> String) {
        let count = self.faults.entry(fault).or_default();
        if *count < EXAMPLES_MAX as u64 {
            self.told.push(told());
        }
        *count += times;
    }

    /// Notes a total that is not what was created.
    pub(crate) fn total(&mut self, fault: Fault, what: &str, found: u64, created: u64) {
        if found != created {
            self.fault(fault, 1, || format!("{found} {what} were found, {created} were created"));
        }
    }

    /// Tells how many there were of each kind with more than the examples.
    pub(crate) fn tell_counts(&mut self) {
        for (fault, count) in &self.faults {
            if *count > EXAMPLES_MAX as u64 {
                self.told.push(format!("{count} faults of kind {fault:?} in all"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftmesh_model::encode_object;

    const CREATED: Totals = Totals { players: 2, gold: 200, items: 2 };

    fn id(number: u128) -> ObjectId {
        ObjectId::from_u128(number)
    }

    fn player(gold: u64, items: &[u128]) -> Value {
        let inventory = items.iter().map(|item| Ref::from_id(id(*item))).collect();
        encode_object(&Player { name: "p".into(), gold, inventory, trades: 0, sum: 0 }).unwrap()
    }

    fn item(holder: u128) -> Value {
        encode_object(&Item { holder: Ref::from_id(id(holder)), kind: "sword".into() }).unwrap()
    }

    /// Players 1 and 2 have the items 11 and 12, one at each peer.
    fn good() -> Vec<(&'static str, u128, Value)> {
        vec![("a", 1, player(70, &[11])), ("a", 11, item(1)), ("b", 2, player(130, &[12])), ("b", 12, item(2))]
    }

    fn judged(met: &[(&'static str, u128, Value)]) -> Findings {
        let mut tally = Tally::default();
        for (owner, object, value) in met {
            tally.meet(owner, id(*object), value);
        }
        tally.judge(CREATED)
    }

    fn kinds(findings: &Findings) -> Vec<Fault> {
        findings.faults.keys().copied().collect()
    }

    #[test]
    fn a_whole_world_has_no_faults() {
        let findings = judged(&good());
        assert_eq!((findings.gold, findings.items, findings.duplicates), (200, 2, 0));
        assert_eq!((kinds(&findings), findings.told.len()), (vec![], 0));
        assert_eq!(findings.owned.into_values().collect::<Vec<_>>(), [2, 2]);
    }

    #[test]
    fn missing_and_minted_gold_is_found() {
        for gold in [69, 71] {
            let mut met = good();
            met[0].2 = player(gold, &[11]);
            assert_eq!(kinds(&judged(&met)), [Fault::Gold]);
        }
    }

    #[test]
    fn an_item_in_two_inventories_is_found() {
        let mut met = good();
        met[2].2 = player(130, &[12, 11]);
        let findings = judged(&met);
        assert_eq!(kinds(&findings), [Fault::InTwoInventories, Fault::WrongHolder]);
        assert_eq!(findings.duplicates, 1);
    }

    #[test]
    fn an_item_twice_in_one_inventory_is_found() {
        let mut met = good();
        met[0].2 = player(70, &[11, 11]);
        assert_eq!(kinds(&judged(&met)), [Fault::InTwoInventories]);
    }

    #[test]
    fn an_item_in_no_inventory_is_found() {
        let mut met = good();
        met[0].2 = player(70, &[]);
        assert_eq!(kinds(&judged(&met)), [Fault::InNoInventory]);
    }

    #[test]
    fn an_object_at_two_owners_is_found() {
        let mut met = good();
        met.push(("b", 11, item(1)));
        let findings = judged(&met);
        assert_eq!(kinds(&findings), [Fault::Items, Fault::MetAgain]);
        assert_eq!((findings.items, findings.duplicates), (3, 1));
    }

    #[test]
    fn an_object_twice_at_one_owner_is_found() {
        let mut met = good();
        met.push(("b", 2, player(130, &[12])));
        let found = kinds(&judged(&met));
        assert_eq!(found, [Fault::Gold, Fault::Players, Fault::MetAgain, Fault::InTwoInventories]);
    }

    #[test]
    fn a_dangling_reference_is_found() {
        let mut met = good();
        met.remove(1);
        assert_eq!(kinds(&judged(&met)), [Fault::Items, Fault::Dangling]);
    }

    #[test]
    fn an_item_that_names_another_holder_is_found() {
        let mut met = good();
        met[1].2 = item(2);
        assert_eq!(kinds(&judged(&met)), [Fault::WrongHolder]);
    }

    #[test]
    fn a_lost_player_without_belongings_is_found() {
        let met = vec![("a", 1, player(200, &[11, 12])), ("a", 11, item(1)), ("b", 12, item(1))];
        assert_eq!(kinds(&judged(&met)), [Fault::Players]);
    }

    #[test]
    fn what_is_no_object_of_this_world_is_found() {
        let mut met = good();
        met.push(("b", 99, Value::from_slice(b"rubbish")));
        assert_eq!(kinds(&judged(&met)), [Fault::UnknownType]);
    }

    #[test]
    fn directory_buckets_belong_to_every_world_but_each_to_one_owner() {
        #[derive(serde::Serialize, serde::Deserialize)]
        struct Bucket;
        impl Object for Bucket {
            const TYPE_NAME: &'static str = NameBucket::TYPE_NAME;
        }
        let mut met = good();
        met.push(("a", 50, encode_object(&Bucket).unwrap()));
        let findings = judged(&met);
        assert_eq!(kinds(&findings), []);
        assert_eq!(findings.owned.into_values().collect::<Vec<_>>(), [2, 2]);
        met.push(("b", 50, encode_object(&Bucket).unwrap()));
        assert_eq!(kinds(&judged(&met)), [Fault::MetAgain]);
    }

    #[test]
    fn many_faults_are_told_as_examples_and_a_count() {
        let mut met = good();
        met.extend((20..30).map(|number| ("b", number, Value::from_slice(b"rubbish"))));
        let findings = judged(&met);
        assert_eq!(findings.faults[&Fault::UnknownType], 10);
        assert_eq!(findings.told.len(), EXAMPLES_MAX + 1);
    }
}
