//! Ids and receipts as text, for orders in JSON.
//!
//! It refuses text that is not exactly what it writes.

use anyhow::{Context, Result, bail};
use driftmesh::{ObjectId, Receipt};
use driftmesh_model::codec;

/// Digits of a packed id.
const DIGITS: usize = 32;

/// Writes ids as one string of 32 hexadecimal digits each.
pub(crate) fn pack(objects: &[ObjectId]) -> String {
    let mut packed = String::with_capacity(objects.len() * DIGITS);
    for object in objects {
        packed.push_str(&object.to_string());
    }
    packed
}

/// Reads what [`pack`] wrote.
pub(crate) fn unpack(packed: &str) -> Result<Vec<ObjectId>> {
    if !packed.is_ascii() || !packed.len().is_multiple_of(DIGITS) {
        bail!("{} bytes are not a list of object ids", packed.len());
    }
    let id = |at: usize| packed[at..at + DIGITS].parse().context("an object id is not hexadecimal");
    (0..packed.len()).step_by(DIGITS).map(id).collect()
}

/// Writes a receipt as the hexadecimal digits of its encoding.
pub(crate) fn pack_receipt(receipt: &Receipt) -> Result<String> {
    Ok(codec::encode(receipt)?.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Reads what [`pack_receipt`] wrote.
pub(crate) fn unpack_receipt(packed: &str) -> Result<Receipt> {
    let (pairs, []) = packed.as_bytes().as_chunks::<2>() else { bail!("half a byte of a receipt") };
    let digit = |sign: u8| char::from(sign).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let byte = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
    let bytes = pairs.iter().map(byte).collect::<Option<Vec<u8>>>().context("a receipt is not hexadecimal")?;
    codec::decode(&bytes).context("no receipt")
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftmesh::{GroupId, Lsn, Term, Timestamp};
    use driftmesh_model::TxnTimestamp;

    #[test]
    fn ids_survive_packing() {
        let objects: Vec<ObjectId> = [0, 1, u128::MAX].into_iter().map(ObjectId::from_u128).collect();
        assert_eq!(unpack(&pack(&objects)).unwrap(), objects);
        assert!(unpack("12").is_err());
        assert!(unpack(&"x".repeat(32)).is_err());
    }

    #[test]
    fn receipts_survive_packing() {
        let receipt = Receipt {
            group: GroupId::from_u128(3),
            term: Term::from_u64(4),
            lsn: Lsn::from_u64(5),
            commit: Timestamp::from_u64(5),
            txn: TxnTimestamp { time: Timestamp::from_u64(7), incarnation: 8, sequence: 9 },
        };
        assert_eq!(unpack_receipt(&pack_receipt(&receipt).unwrap()).unwrap(), receipt);
        for bad in ["1", "zz", "00", ""] {
            assert!(unpack_receipt(bad).is_err(), "{bad}");
        }
        // `from_str_radix` takes a sign before a digit: no packed byte has one.
        let signed = pack_receipt(&receipt).unwrap().replacen("05", "+5", 1);
        assert!(signed.contains('+') && unpack_receipt(&signed).is_err(), "{signed}");
    }
}
