//! Pages of a scan: each fits a message, whatever the objects were at its snapshot.

use crate::harness::{Mesh, Txn, peer_id};
use driftmesh_model::{ObjectId, Value};
use driftmesh_peer::{ARRIVALS_FROM, ScanPage, Seen};
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

#[test]
fn a_page_of_a_peer_that_is_gone_is_not_waited_for() {
    let mesh = Mesh::new(2);
    let walker = mesh.begin_snapshot(1);
    let scan = || mesh.step(1, |peer, now| peer.scan(now, walker.id, peer_id(0), 0));
    assert!(scan().is_pending());
    mesh.disconnect(0, 1);
    mesh.woken(walker);
    mesh.run(400);
    assert!(mesh.woken(walker), "it is not told");
    assert_eq!(scan(), Poll::Ready(None));
}

#[test]
fn a_peer_reads_its_own_pages_below_a_window_that_covers_them() {
    let mesh = Mesh::replicated(3, 2);
    let object = mesh.create_known(0, 1);
    mesh.run(500);
    mesh.hold_entries(0);
    mesh.run(500);
    let walker = mesh.begin_snapshot(0);
    let scan = || mesh.step(0, |peer, now| peer.scan(now, walker.id, peer_id(0), 0));
    // R8: somebody else may lead its group, and commit below the snapshot.
    assert!(scan().is_pending());
    mesh.run(50);
    assert!(scan().is_pending());
    mesh.release();
    let page = page(&mesh, walker, 0, 0);
    assert!(page.objects.iter().any(|scanned| scanned.object == object));
}

#[test]
fn what_came_and_has_left_again_is_named_among_the_arrivals() {
    let mesh = Mesh::new(2);
    let object = mesh.create_known(1, 1);
    let came = mesh.look(0, |peer| peer.group().owned_count());
    mesh.put(0, object, 2);
    mesh.put(1, object, 3);
    mesh.run(1_000);
    let walker = mesh.begin_snapshot(1);
    let page = page(&mesh, walker, 0, ARRIVALS_FROM);
    assert_eq!((came, page.arrivals, page.whole), (0, 1, true));
    assert_eq!((page.moving, page.objects), (vec![object], Vec::new()));
}
