//! Trades as they are ordered and answered: records of a fixed size, because there are 100,000 a second.
//!
//! It refuses bytes that are no whole number of records, and tags and flags that it does not know.

use anyhow::{Result, bail};
use driftmesh::{GroupId, Lsn, Receipt, Term, Timestamp};
use driftmesh_model::TxnTimestamp;

/// A trade that a bot wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TradeOrder {
    /// Its number: no two trades of a run share one.
    pub(crate) id: u64,
    /// Whose it is.
    pub(crate) bot: u32,
    /// Who pays: a place in the list of all players.
    pub(crate) buyer: u32,
    /// Who has an item to sell.
    pub(crate) seller: u32,
    /// What is paid, unless the payer has less.
    pub(crate) price: u16,
    /// Which of the seller's items is sold, modulo their number.
    pub(crate) choice: u16,
    /// Whether to tell when the commit has become stable.
    pub(crate) watched: bool,
}

/// What a peer says of a trade.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TradeAnswer {
    /// The order's number.
    pub(crate) id: u64,
    /// Whose order it was.
    pub(crate) bot: u32,
    /// What happened.
    pub(crate) said: Said,
}

/// What happened to a trade.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Said {
    /// It committed.
    Committed(Commit),
    /// Neither had anything to give; nothing was written.
    Nothing,
    /// It was given up at its deadline; nothing of it took effect.
    Deadline,
    /// A commit that was answered before has become stable.
    Stable {
        /// How long after its answer, nanoseconds.
        after_nanos: u64,
    },
}

/// A commit as its caller was told of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Commit {
    /// Where it stands.
    pub(crate) receipt: Receipt,
    /// From the call of the transaction to its answer, nanoseconds.
    pub(crate) nanos: u64,
    /// What the buyer gained in gold; negative when he paid.
    pub(crate) gold: i16,
    /// Whether an item went from the seller to the buyer.
    pub(crate) sold: bool,
    /// Whether the transaction awaited a message.
    pub(crate) awaited_message: bool,
    /// Whether it was stable when it was answered.
    pub(crate) stable: bool,
}

const ORDER_BYTES: usize = 25;
const ANSWER_BYTES: usize = 88;

const COMMITTED: u8 = 0;
const NOTHING: u8 = 1;
const DEADLINE: u8 = 2;
const STABLE: u8 = 3;

const SOLD: u8 = 1;
const AWAITED: u8 = 2;
const WAS_STABLE: u8 = 4;

/// Takes numbers off the front of a record; the record is long enough by construction.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut taken = [0; N];
        if let Some((front, rest)) = self.0.split_at_checked(N) {
            taken.copy_from_slice(front);
            self.0 = rest;
        }
        taken
    }

    fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.take())
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

impl TradeOrder {
    /// Appends the record.
    pub(crate) fn append(&self, buffer: &mut Vec<u8>) {
        buffer.extend_from_slice(&self.id.to_le_bytes());
        buffer.extend_from_slice(&self.bot.to_le_bytes());
        buffer.extend_from_slice(&self.buyer.to_le_bytes());
        buffer.extend_from_slice(&self.seller.to_le_bytes());
        buffer.extend_from_slice(&self.price.to_le_bytes());
        buffer.extend_from_slice(&self.choice.to_le_bytes());
        buffer.push(u8::from(self.watched));
    }

    /// Reads all records of a frame.
    pub(crate) fn read_all(bytes: &[u8]) -> Result<Vec<Self>> {
        let (records, []) = bytes.as_chunks::<ORDER_BYTES>() else {
            bail!("{} bytes are no list of trade orders", bytes.len());
        };
        let orders = records.iter().map(|record| {
            let mut from = Reader(record);
            Ok(Self {
                id: from.u64(),
                bot: from.u32(),
                buyer: from.u32(),
                seller: from.u32(),
                price: from.u16(),
                choice: from.u16(),
                watched: flag(from.u8())?,
            })
        });
        orders.collect()
    }
}

fn flag(byte: u8) -> Result<bool> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        other => bail!("{other} is no flag"),
    }
}

impl TradeAnswer {
    /// Appends the record.
    pub(crate) fn append(&self, buffer: &mut Vec<u8>) {
        let end = buffer.len() + ANSWER_BYTES;
        buffer.extend_from_slice(&self.id.to_le_bytes());
        buffer.extend_from_slice(&self.bot.to_le_bytes());
        match &self.said {
            Said::Committed(commit) => commit.append(buffer),
            Said::Nothing => buffer.push(NOTHING),
            Said::Deadline => buffer.push(DEADLINE),
            Said::Stable { after_nanos } => {
                buffer.push(STABLE);
                buffer.extend_from_slice(&after_nanos.to_le_bytes());
            }
        }
        buffer.resize(end, 0);
    }

    /// Reads all records of a frame.
    pub(crate) fn read_all(bytes: &[u8]) -> Result<Vec<Self>> {
        let (records, []) = bytes.as_chunks::<ANSWER_BYTES>() else {
            bail!("{} bytes are no list of trade answers", bytes.len());
        };
        let answers = records.iter().map(|record| {
            let mut from = Reader(record);
            let (id, bot) = (from.u64(), from.u32());
            let said = match from.u8() {
                COMMITTED => Said::Committed(Commit::read(&mut from)?),
                NOTHING => Said::Nothing,
                DEADLINE => Said::Deadline,
                STABLE => Said::Stable { after_nanos: from.u64() },
                other => bail!("{other} is no answer to a trade"),
            };
            Ok(Self { id, bot, said })
        });
        answers.collect()
    }
}

impl Commit {
    fn append(&self, buffer: &mut Vec<u8>) {
        buffer.push(COMMITTED);
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        buffer.push(flag(self.sold, SOLD) | flag(self.awaited_message, AWAITED) | flag(self.stable, WAS_STABLE));
        buffer.extend_from_slice(&self.gold.to_le_bytes());
        buffer.extend_from_slice(&self.receipt.group.as_u128().to_le_bytes());
        let numbers = [
            self.nanos,
            self.receipt.term.as_u64(),
            self.receipt.lsn.as_u64(),
            self.receipt.commit.as_u64(),
            self.receipt.txn.time.as_u64(),
            self.receipt.txn.incarnation,
            self.receipt.txn.sequence,
        ];
        for number in numbers {
            buffer.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        let flags = from.u8();
        if flags & !(SOLD | AWAITED | WAS_STABLE) != 0 {
            bail!("{flags} are not the flags of a commit");
        }
        let gold = i16::from_le_bytes(from.take());
        let group = GroupId::from_u128(u128::from_le_bytes(from.take()));
        let nanos = from.u64();
        let receipt = Receipt {
            group,
            term: Term::from_u64(from.u64()),
            lsn: Lsn::from_u64(from.u64()),
            commit: Timestamp::from_u64(from.u64()),
            txn: TxnTimestamp { time: Timestamp::from_u64(from.u64()), incarnation: from.u64(), sequence: from.u64() },
        };
        let [sold, awaited_message, stable] = [SOLD, AWAITED, WAS_STABLE].map(|flag| flags & flag != 0);
        Ok(Self { receipt, nanos, gold, sold, awaited_message, stable })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit() -> Commit {
        let txn = TxnTimestamp { time: Timestamp::from_u64(5), incarnation: u64::MAX, sequence: 6 };
        let receipt = Receipt {
            group: GroupId::from_u128(u128::MAX - 1),
            term: Term::from_u64(2),
            lsn: Lsn::from_u64(3),
            commit: Timestamp::from_u64(4),
            txn,
        };
        Commit { receipt, nanos: 1_234, gold: -5, sold: true, awaited_message: false, stable: true }
    }

    #[test]
    fn orders_survive() {
        let one = TradeOrder { id: 1, bot: 2, buyer: 3, seller: u32::MAX, price: 5, choice: 65_000, watched: true };
        let two = TradeOrder { id: u64::MAX, watched: false, ..one };
        let mut bytes = Vec::new();
        one.append(&mut bytes);
        two.append(&mut bytes);
        assert_eq!(TradeOrder::read_all(&bytes).unwrap(), [one, two]);
        assert!(TradeOrder::read_all(&bytes[1..]).is_err());
        bytes[ORDER_BYTES - 1] = 7;
        assert!(TradeOrder::read_all(&bytes).is_err());
    }

    #[test]
    fn answers_survive() {
        let said = [Said::Committed(commit()), Said::Nothing, Said::Deadline, Said::Stable { after_nanos: 9 }];
        let answers = said.map(|said| TradeAnswer { id: 7, bot: 8, said });
        let mut bytes = Vec::new();
        answers.iter().for_each(|answer| answer.append(&mut bytes));
        assert_eq!(TradeAnswer::read_all(&bytes).unwrap(), answers);
        assert!(TradeAnswer::read_all(&bytes[1..]).is_err());
        bytes[12] = 99;
        assert!(TradeAnswer::read_all(&bytes).is_err());
    }

    #[test]
    fn the_longest_answer_fills_its_record() {
        let mut bytes = Vec::new();
        commit().append(&mut bytes);
        assert_eq!(bytes.len() + 12, ANSWER_BYTES);
    }
}
