//! Tests of what hand-made remotes say: each breaks the protocol in its own way, and loses its own connection by that.
//!
//! They refuse to be fast: what breaks the protocol is told for certain, and how soon is not asserted.

use super::*;

#[tokio::test]
async fn a_fresh_peer_that_breaks_the_protocol_ends_its_link_only() {
    let (low, high) = two_keys();
    let (target, told) = start(TransportConfig { keypair: high, ..fresh(3, vec![]) }).await;
    let (friend, _) = start(fresh(3, vec![address_of(&target)])).await;
    until("a friend is met", || told.fresh(friend.local_peer()) == [FreshEvent::Met]).await;
    let table: [(Vec<u8>, FrameError); 5] = [
        (vec![0; 50], FrameError::UnknownKind(0)),
        (frame::encode(FrameKind::Payload, b"not admitted"), FrameError::Unexpected(1)),
        (frame::encode(FrameKind::Alive, b""), FrameError::Unexpected(5)),
        (frame::encode(FrameKind::Founding, &[0xff; 9]), FrameError::Body(0x47)),
        (frame::encode(FrameKind::Hello, b""), FrameError::Unexpected(0x81)),
    ];
    for (index, (bytes, error)) in table.into_iter().enumerate() {
        let mut stream = greeted_stream(low.clone(), &target, None, Some(3)).await;
        stream.write_all(&bytes).await.unwrap();
        stream.flush().await.unwrap();
        until("it is refused", || told.refusals().len() == index + 1).await;
        assert_eq!(told.refusals()[index], (RefuseReason::Malformed(error), false));
        assert_eq!(told.fresh(id(&low)).last(), Some(&FreshEvent::Lost));
        until("its connection is closed", || target.owner.shared.endpoint(&id(&low)).is_none()).await;
    }
    assert!(target.peers().is_empty() && told.payloads.lock().unwrap().is_empty());
    assert_eq!(told.fresh(friend.local_peer()), [FreshEvent::Met]);
    let mut random = blake3::Hasher::new().update(b"fresh link").finalize_xof();
    for round in 1..=40 {
        let mut stream = greeted_stream(low.clone(), &target, None, Some(3)).await;
        let mut bytes = vec![0; 200];
        random.fill(&mut bytes);
        bytes[..4].copy_from_slice(&[0x47, 0, 0, 20]);
        let _ = stream.write_all(&bytes).await;
        let _ = stream.close().await;
        until("it is lost", || {
            told.fresh(id(&low)).iter().filter(|event| **event == FreshEvent::Lost).count() == 5 + round
        })
        .await;
        drop(stream);
        until("its connection is closed", || target.owner.shared.endpoint(&id(&low)).is_none()).await;
    }
    assert_eq!(told.fresh(friend.local_peer()), [FreshEvent::Met]);
}

/// A hand-made remote that speaks libp2p and writes what it likes.
struct Stranger {
    swarm: libp2p::Swarm<swarm::Behaviour>,
}

impl Stranger {
    fn new(keypair: Keypair) -> Self {
        Self { swarm: swarm::build(keypair, Arc::default()).unwrap() }
    }

    /// Writes the bytes on a new substream; gives all that comes back until the other side closes it. Opens another one when
    /// nothing comes: who reads a substream says hello first.
    async fn write(mut self, to: &Transport, bytes: &[u8]) -> Vec<u8> {
        let peer = to_libp2p(&to.local_peer()).unwrap();
        let mut control = self.swarm.behaviour().control();
        drop_incoming(control.clone());
        self.swarm.dial(to.addresses()[0].clone()).unwrap();
        while !matches!(self.swarm.select_next_some().await, SwarmEvent::ConnectionEstablished { .. }) {}
        let talk = async {
            loop {
                let mut stream = control.open_stream(peer, PROTOCOL).await.unwrap();
                let mut answer = vec![];
                let _ = stream.write_all(bytes).await;
                let _ = stream.flush().await;
                let _ = stream.read_to_end(&mut answer).await;
                if !answer.is_empty() {
                    return answer;
                }
                tokio::time::sleep(limits::OPEN_RETRY_DELAY).await;
            }
        };
        let mut swarm = self.swarm;
        let spin = async {
            loop {
                swarm.select_next_some().await;
            }
        };
        tokio::select! {
            answer = tokio::time::timeout(PATIENCE, talk) => answer.unwrap(),
            () = spin => unreachable!("it has no end"),
        }
    }
}

fn has_refuse_frame(answer: &[u8]) -> bool {
    let mut buffer = frame::FrameBuffer::new();
    for piece in answer.chunks(1_024) {
        buffer.space()[..piece.len()].copy_from_slice(piece);
        buffer.filled(piece.len());
        while let Ok(Some((kind, _))) = buffer.next(frame::BODY_MAX) {
            if kind == FrameKind::Refuse {
                return true;
            }
        }
    }
    false
}

#[tokio::test]
async fn garbage_in_the_handshake_closes_that_connection_only() {
    let (low, high) = two_keys();
    let (target, told) = start(TransportConfig { keypair: high, ..config() }).await;
    let (friend, _) = start(joining(&target)).await;
    until("a friend is admitted", || target.peers().len() == 1).await;
    let hello = |body: &[u8]| frame::encode(FrameKind::Hello, body);
    let table: [(Vec<u8>, FrameError); 6] = [
        (vec![0xff; 100], FrameError::UnknownKind(0xff)),
        (vec![0x81, 0xff, 0xff, 0xff], FrameError::TooLong { length: 0x00ff_ffff, limit: 16 << 10 }),
        (hello(&[]), FrameError::Body(0x81)),
        (
            hello(&[&PROTOCOL_VERSION.to_be_bytes()[..], &[0xa1, 0x9b, 0xff, 0xff, 0xff, 0xff]].concat()),
            FrameError::Body(0x81),
        ),
        (frame::encode(FrameKind::Payload, b"early"), FrameError::Unexpected(1)),
        (frame::encode(FrameKind::Admit, b""), FrameError::Unexpected(0x84)),
    ];
    for (index, (bytes, error)) in table.into_iter().enumerate() {
        let answer = Stranger::new(low.clone()).write(&target, &bytes).await;
        assert!(has_refuse_frame(&answer), "{error}");
        until("the refusal is told", || told.refusals().len() == index + 1).await;
        assert_eq!(told.refusals()[index], (RefuseReason::Malformed(error), false));
    }
    assert_eq!(target.peers(), [friend.local_peer()]);
    assert_eq!(told.leavings(), []);
    target.send(friend.local_peer(), b"still here".to_vec()).unwrap();
}

/// A substream of a member that passed the handshake with a target, on a connection that is kept alive.
async fn admitted_stream(keypair: Keypair, target: &Transport) -> libp2p::Stream {
    greeted_stream(keypair, target, Some(genesis()), None).await
}

/// Keys of lower peers than one with the returned key.
fn high_key_and_lower_ones(count: usize) -> (Keypair, Vec<Keypair>) {
    let mut keys: Vec<Keypair> = (0..=count).map(|_| Keypair::generate_ed25519()).collect();
    keys.sort_unstable_by_key(id);
    (keys.pop().unwrap(), keys)
}

/// A substream that passed the handshake with a target, on a connection that is kept alive.
async fn greeted_stream(
    keypair: Keypair,
    target: &Transport,
    genesis: Option<Genesis>,
    expect: Option<u16>,
) -> libp2p::Stream {
    let shared = shared_of(&keypair, genesis, expect);
    open_greeted(&mut connected(&keypair, target).await, &shared, target).await
}

/// Opens substreams on a connection that is kept alive.
async fn connected(keypair: &Keypair, target: &Transport) -> Control {
    let mut swarm = swarm::build(keypair.clone(), Arc::default()).unwrap();
    let control = swarm.behaviour().control();
    drop_incoming(control.clone());
    swarm.dial(target.addresses()[0].clone()).unwrap();
    while !matches!(swarm.select_next_some().await, SwarmEvent::ConnectionEstablished { .. }) {}
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    control
}

#[tokio::test]
async fn garbage_after_the_admission_closes_that_connection_only() {
    // A new one each time: who breaks the protocol is refused from then on.
    let (high, mut lower) = high_key_and_lower_ones(11);
    let (target, told) = start(TransportConfig { keypair: high, ..config() }).await;
    let (friend, _) = start(joining(&target)).await;
    until("a friend is admitted", || target.peers().len() == 1).await;
    let begin = |length: u32| frame::encode(FrameKind::BulkBegin, &length.to_be_bytes());
    let table: [(Vec<u8>, FrameError); 11] = [
        (vec![0; 50], FrameError::UnknownKind(0)),
        (vec![1, 0x01, 0x00, 0x01], FrameError::TooLong { length: 0x1_0001, limit: 0x1_0000 }),
        (begin(u32::MAX), FrameError::BulkLength(u32::MAX)),
        (begin(0), FrameError::BulkLength(0)),
        ([begin(1), frame::encode(FrameKind::BulkChunk, b"ab")].concat(), FrameError::BulkOverrun),
        (frame::encode(FrameKind::BulkChunk, b"ab"), FrameError::Unexpected(3)),
        (frame::encode(FrameKind::BulkCredit, &[0, 0, 0, 1]), FrameError::Credit),
        (frame::encode(FrameKind::Alive, &[0xff; 9]), FrameError::Body(5)),
        (frame::encode(FrameKind::Goodbye, b"and more"), FrameError::Body(6)),
        (frame::encode(FrameKind::Hello, b""), FrameError::Unexpected(0x81)),
        (fresh::said(b"too late".to_vec()).unwrap(), FrameError::Unexpected(0x47)),
    ];
    for (index, (bytes, error)) in table.into_iter().enumerate() {
        let low = lower.pop().unwrap();
        let mut stream = admitted_stream(low.clone(), &target).await;
        // What comes before the garbage still counts.
        stream.write_all(&frame::encode(FrameKind::Payload, b"good")).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        stream.flush().await.unwrap();
        until("it has left", || told.leavings().len() == index + 1).await;
        assert_eq!(told.leavings()[index], LeaveReason::Malformed(error));
        assert_eq!(told.payloads.lock().unwrap().len(), index + 1);
        assert_eq!(target.peers(), [friend.local_peer()]);
        until("its connection is closed", || target.owner.shared.endpoint(&id(&low)).is_none()).await;
    }
    told.assert_turns();
}

/// Writes an admission with a body, and everything else as it is.
struct AdmitsAndSaysMore(libp2p::Stream);

impl AsyncRead for AdmitsAndSaysMore {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(context, bytes)
    }
}

impl AsyncWrite for AdmitsAndSaysMore {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes != frame::encode(FrameKind::Admit, &[]) {
            return Pin::new(&mut self.0).poll_write(context, bytes);
        }
        let more = frame::encode(FrameKind::Admit, b"more");
        Pin::new(&mut self.0).poll_write(context, &more).map_ok(|_| bytes.len())
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(context)
    }
}

#[tokio::test]
async fn an_admission_that_says_more_is_refused() {
    let (low, high) = two_keys();
    let (target, told) = start(TransportConfig { keypair: high, ..config() }).await;
    let mut control = connected(&low, &target).await;
    let shared = shared_of(&low, Some(genesis()), None);
    let mut outcome = Err(Failure::Unheard);
    while matches!(outcome, Err(Failure::Unheard)) {
        let stream = control.open_stream(to_libp2p(&target.local_peer()).unwrap(), PROTOCOL).await.unwrap();
        // It may admit the target before it hears of the refusal.
        outcome = handshake::run(&shared, target.local_peer(), &mut AdmitsAndSaysMore(stream)).await.map(drop);
    }
    until("the refusal is told", || !told.refusals().is_empty()).await;
    assert_eq!(told.refusals(), [(RefuseReason::Malformed(FrameError::Body(0x84)), false)]);
    assert_eq!(target.peers(), []);
}

/// A substream that the remote drops: at once, or when it has said something.
struct Drops {
    said: &'static [u8],
}

impl AsyncRead for Drops {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.said.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let count = io::Read::read(&mut self.said, bytes)?;
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Drops {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(if self.said.is_empty() { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(bytes.len()) })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_substream_that_is_dropped_unread_is_no_refusal() {
    let (low, high) = two_keys();
    let shared = shared_of(&low, Some(genesis()), None);
    let outcome = handshake::run(&shared, id(&high), &mut Drops { said: b"" }).await;
    assert!(matches!(outcome, Err(Failure::Unheard)), "the opener tries again");
    // A hello that is not whole: the remote was there.
    let outcome = handshake::run(&shared, id(&high), &mut Drops { said: &[0x81, 0, 0, 9] }).await;
    let lost = |failure: &Failure| {
        matches!(failure, Failure::Refused { reason: RefuseReason::ConnectionLost, by_remote: false })
    };
    assert!(outcome.is_err_and(|failure| lost(&failure)));
}

#[tokio::test]
async fn random_bytes_after_the_admission_never_panic() {
    let (high, lower) = high_key_and_lower_ones(40);
    let (target, told) = start(TransportConfig { keypair: high, ..config() }).await;
    let mut random = blake3::Hasher::new().update(b"session").finalize_xof();
    for (round, low) in (1..).zip(lower) {
        let mut stream = admitted_stream(low.clone(), &target).await;
        let mut bytes = vec![0; 200];
        random.fill(&mut bytes);
        // A valid kind and a short length at first, so that the bodies are read too.
        bytes[..4].copy_from_slice(&[u8::try_from(round % 6).unwrap() + 1, 0, 0, 20]);
        let _ = stream.write_all(&bytes).await;
        let _ = stream.close().await;
        until("it has left", || told.leavings().len() == round).await;
        assert!(!matches!(&told.leavings()[round - 1], LeaveReason::Lost { error } if error.contains("panic")));
        until("its connection is closed", || target.owner.shared.endpoint(&id(&low)).is_none()).await;
    }
    told.assert_turns();
}

#[tokio::test]
async fn a_remote_that_says_nothing_is_refused_in_time() {
    let (low, high) = two_keys();
    let (target, told) = start(TransportConfig { keypair: high, ..config() }).await;
    let answer = Stranger::new(low).write(&target, &[]).await;
    assert!(has_refuse_frame(&answer));
    until("told", || told.refusals() == [(RefuseReason::HandshakeTimeout, false)]).await;
}

#[tokio::test]
async fn a_member_that_breaks_the_protocol_is_refused_for_a_while_and_told_so() {
    let (low, high) = two_keys();
    let (target, told) = start(TransportConfig { keypair: high, ..config() }).await;
    let (friend, _) = start(joining(&target)).await;
    until("a friend is admitted", || target.peers().len() == 1).await;
    let mut stream = admitted_stream(low.clone(), &target).await;
    stream.write_all(&[0; 50]).await.unwrap();
    stream.flush().await.unwrap();
    until("it has left", || told.leavings() == [LeaveReason::Malformed(FrameError::UnknownKind(0))]).await;
    until("its connection is closed", || target.owner.shared.endpoint(&id(&low)).is_none()).await;
    let again = TransportConfig { keypair: low.clone(), ..joining(&target) };
    let (_again, again_told) = start(again).await;
    let is_refusal = |(reason, by_remote): &(RefuseReason, bool), remote: bool| {
        let is_dropped = matches!(reason, RefuseReason::Dropped { seconds } if (1..=60).contains(seconds));
        is_dropped && *by_remote == remote
    };
    until("it is told so", || again_told.refusals().iter().any(|refusal| is_refusal(refusal, true))).await;
    until("so is the user", || told.refusals().iter().any(|refusal| is_refusal(refusal, false))).await;
    assert_eq!(told.admitted(id(&low)), 1, "the first time only");
    let [offender] = target.offenders()[..] else { panic!("{:?}", target.offenders()) };
    assert_eq!((offender.peer, offender.malformed, offender.dropped), (id(&low), 1, 1));
    assert!(offender.refused_for.is_some() && target.counters().offenders_refused > 0);
    assert_eq!((target.counters().malformed, target.counters().offenders_dropped), (1, 1));
    assert_eq!(target.peers(), [friend.local_peer()]);
}

#[tokio::test]
async fn who_says_what_no_peer_says_is_dropped_and_neither_dialled_nor_admitted_for_a_while() {
    let ((one, one_told), (other, other_told)) = pair().await;
    *one_told.opinion.lock().unwrap() = Received { impossible: 1, ..Received::default() };
    for _ in 0..limits::OFFENCES_MAX {
        other.send(one.local_peer(), b"rubbish".to_vec()).unwrap();
    }
    until("all have arrived", || one_told.payloads.lock().unwrap().len() == limits::OFFENCES_MAX as usize).await;
    assert_eq!(one.peers(), [other.local_peer()], "what may be forgiven is no reason yet");
    for _ in 0..limits::OFFENCES_MAX {
        // It is dropped in between.
        let _ = other.send(one.local_peer(), b"rubbish".to_vec());
    }
    until("it is dropped", || matches!(one_told.leavings()[..], [LeaveReason::Dropped { .. }])).await;
    until("it is refused", || one.counters().offenders_refused > 1).await;
    let is_told = |(reason, by): &(RefuseReason, bool)| matches!(reason, RefuseReason::Dropped { .. }) && *by;
    until("and told so", || other_told.refusals().iter().any(is_told)).await;
    assert_eq!((one_told.admitted(other.local_peer()), one.counters().offenders_dropped), (1, 1));
    assert!(one.counters().impossible > u64::from(limits::OFFENCES_MAX));
    one_told.assert_turns();
}

#[tokio::test]
async fn who_says_too_much_waits_and_nobody_else_does() {
    let ((one, one_told), (other, _)) = pair().await;
    let (third, _) = start(joining(&one)).await;
    until("a third one is admitted", || one.peers().len() == 2).await;
    *one_told.opinion.lock().unwrap() = Received { held: Duration::from_secs(60), ..Received::default() };
    other.send(one.local_peer(), b"costly".to_vec()).unwrap();
    until("it is paused", || one.counters().inbound_paused == 1).await;
    *one_told.opinion.lock().unwrap() = Received::default();
    let heard = |from: &Transport| {
        one_told.payloads.lock().unwrap().iter().filter(|(peer, _)| *peer == from.local_peer()).count()
    };
    for _ in 0..100 {
        other.send(one.local_peer(), b"waits".to_vec()).unwrap();
        third.send(one.local_peer(), b"does not wait".to_vec()).unwrap();
    }
    until("the third one is heard", || heard(&third) == 100).await;
    assert_eq!(heard(&other), 1, "it waits for some seconds");
    assert_eq!(one.peers().len(), 2, "nobody is dropped for a flood");
}

#[tokio::test]
async fn connections_that_say_nothing_take_a_bounded_room_and_give_it_back() {
    let (target, _) = start(config()).await;
    let socket = address::socket(&target.addresses()[0]).unwrap();
    let mut silent = Vec::new();
    for _ in 0..limits::PENDING_PER_HOST_MAX + 20 {
        silent.push(std::net::TcpStream::connect(socket).unwrap());
    }
    until("the last ones are turned away", || target.counters().connections_turned_away >= 20).await;
    assert_eq!(target.counters().connections_turned_away, 20);
    drop(silent);
    let (joiner, _) = start(joining(&target)).await;
    until("there is room again", || joiner.peers() == [target.local_peer()]).await;
}
