//! Pages of a scan: each fits a message, whatever the objects were at its snapshot.

use crate::harness::{Mesh, Txn, peer_id};
use driftmesh_model::{ObjectId, Value};
use driftmesh_peer::{ScanPage, Seen};
use std::collections::BTreeSet;
use std::task::Poll;

fn page(mesh: &Mesh, walker: Txn, owner: usize, cursor: u64) -> ScanPage {
    for _ in 0..1_000 {
        let asked = mesh.step(walker.at, |peer, now| peer.scan(now, walker.id, peer_id(owner), cursor));
        if let Poll::Ready(page) = asked {
            return page.expect("the owner is in reach");
        }
        mesh.run(1);
    }
    panic!("no page comes");
}

fn bytes_of(page: &ScanPage) -> usize {
    let seen = page.objects.iter().map(|scanned| match &scanned.seen {
        Seen::Version { value: Some(value), .. } => value.len(),
        Seen::Version { value: None, .. } | Seen::NotYetCreated | Seen::TooOld => 0,
    });
    seen.sum()
}

#[test]
fn what_was_large_at_the_snapshot_and_is_gone_now_comes_in_pages_that_fit_a_message() {
    const LARGE: usize = 600 << 10;
    let mesh = Mesh::new(2);
    let large = Value::from_slice(&vec![7; LARGE]);
    let objects: Vec<ObjectId> = (0..20).flat_map(|_| mesh.create_values(0, std::slice::from_ref(&large))).collect();
    mesh.run(50);
    let walker = mesh.begin_snapshot(1);
    mesh.run(5);
    for object in &objects {
        mesh.put_values(0, &[(*object, None)]);
    }
    let (mut met, mut cursor) = (BTreeSet::new(), Some(0));
    while let Some(at) = cursor {
        let page = page(&mesh, walker, 0, at);
        assert!(bytes_of(&page) <= 2 * LARGE, "{} bytes in a page", bytes_of(&page));
        met.extend(
            page.objects
                .iter()
                .filter(|scanned| matches!(&scanned.seen, Seen::Version { value: Some(_), .. }))
                .map(|scanned| scanned.object),
        );
        cursor = page.next;
    }
    assert!(objects.iter().all(|object| met.contains(object)));
}
