//! A group of one member that loses its lead by a word of a higher term, and elects itself again.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, though the lint does not see it")]

use driftmesh_model::{Generation, GroupId, Incarnation, Lsn, Micros, ObjectId, PeerId, Term, Timestamp, Value};
use driftmesh_object_store::{Body, Entry, Group, GroupMessage, MemberId, Message, Settings, Write};

fn member(number: u8) -> MemberId {
    MemberId { peer: PeerId::from_bytes([number; 32]), incarnation: Incarnation::from_u64(u64::from(number)) }
}

fn write(group: &mut Group, now: Micros, time: u64) -> Lsn {
    let writes = vec![Write { object: ObjectId::from_u128(1), value: Some(Value::from_slice(&[7])) }];
    let commit = Timestamp::from_u64(time);
    group.append(now, Entry::Commit { commit, writes, outcome: None, schedules: Vec::new() })
}

/// Found by the fuzz target `group`: who is alone kept nothing of its own journal, the first entry of its new lead neither,
/// which nobody had applied; the next commit ended the process (R25).
#[test]
fn a_lone_member_that_leads_again_holds_its_whole_journal() {
    for keep_bytes in [0, Settings::default().keep_bytes, u64::MAX] {
        let settings = Settings { keep_bytes, ..Settings::default() };
        let mut group = Group::found(GroupId::from_u128(1), member(1), settings, 1, Micros(0));
        write(&mut group, Micros(0), 1);
        let body = Body::Vote { last: Lsn::ZERO, last_term: Term::ZERO, trial: false };
        let higher = Message { generation: Generation::ZERO, term: Term::from_u64(5), body };
        group.received(Micros(1_000), member(2), GroupMessage::Consensus(higher));
        assert!(!group.is_leading());
        for millis in 1..5_000 {
            group.tick(Micros(millis * 1_000));
        }
        assert!(group.is_leading(), "nobody else can");
        assert_eq!((group.applied(), group.tail()), (group.tail(), group.watermark()));
        let now = Micros(5_000_000);
        assert_eq!(write(&mut group, now, 2), group.tail());
        let terms: Vec<_> = group.term_table().iter().map(|(term, _)| term.as_u64()).collect();
        assert!(matches!(terms[..], [1, later] if later > 5), "R22: the term table has the new lead: {terms:?}");
        assert_eq!(group.applied(), Lsn::from_u64(4));
    }
}
