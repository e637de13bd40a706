//! What the clients of a run asked and were answered, in the order of real time.
//!
//! What becomes of a commit is known later than its answer, so a call's place is that of its answer and its outcome is
//! patched in when its fate is known. It refuses to guess: what nobody told is unknown.

use driftmesh_object_store::Fate;

/// When something happened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Moment {
    /// Its place among all that happened.
    pub(super) order: u64,
    /// Time since the run began, ns.
    pub(super) nanos: u64,
}

/// Names a call.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct CallId(usize);

/// How a call ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End<A> {
    /// It was told committed.
    Committed {
        /// What it was answered.
        answered: A,
        /// What became of the commit.
        fate: Fate,
    },
    /// It was told that nothing of it took effect.
    Aborted,
    /// It was told that nobody knows.
    Unknown,
}

/// What a call came to, as a judge must see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Came<'call, A> {
    /// It took effect, and this was its answer.
    Ok(&'call A),
    /// It took no effect, or a crash undid it and its caller was told so.
    Fail,
    /// It may have taken effect.
    Info,
}

/// One transaction of one client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call<Q, A> {
    /// Whose it is. A client does one thing after the other.
    pub client: u32,
    /// What it asked for.
    pub asked: Vec<Q>,
    pub(super) begun: Moment,
    pub(super) ended: Option<(Moment, End<A>)>,
}

impl<Q, A> Call<Q, A> {
    /// What it came to.
    pub const fn came(&self) -> Came<'_, A> {
        match &self.ended {
            Some((_, End::Committed { answered, fate: Fate::Stable })) => Came::Ok(answered),
            Some((_, End::Committed { fate: Fate::Lost, .. } | End::Aborted)) => Came::Fail,
            Some((_, End::Committed { fate: Fate::Unknown, .. } | End::Unknown)) | None => Came::Info,
        }
    }
}

/// All calls of a run, in the order in which they began.
#[derive(Clone, Debug)]
pub struct Calls<Q, A> {
    calls: Vec<Call<Q, A>>,
    order: u64,
    nanos: u64,
}

impl<Q, A> Default for Calls<Q, A> {
    fn default() -> Self {
        Self { calls: Vec::new(), order: 0, nanos: 0 }
    }
}

impl<Q, A> Calls<Q, A> {
    fn moment(&mut self, nanos: u64) -> Moment {
        self.order += 1;
        // Clocks of other threads may be read a little earlier; the order is that of the calls here.
        self.nanos = self.nanos.max(nanos);
        Moment { order: self.order, nanos: self.nanos }
    }

    /// A client asks for something, so long after the run began, ns.
    pub fn begin(&mut self, client: u32, nanos: u64, asked: Vec<Q>) -> CallId {
        let begun = self.moment(nanos);
        self.calls.push(Call { client, asked, begun, ended: None });
        CallId(self.calls.len() - 1)
    }

    /// It is answered. Only the first answer counts.
    pub fn end(&mut self, call: CallId, nanos: u64, end: End<A>) {
        let ended = self.moment(nanos);
        if let Some(call) = self.calls.get_mut(call.0) {
            call.ended.get_or_insert((ended, end));
        }
    }

    /// What became of a commit is known.
    pub fn decide(&mut self, call: CallId, decided: Fate) {
        if let Some(Call { ended: Some((_, End::Committed { fate, .. })), .. }) = self.calls.get_mut(call.0) {
            *fate = decided;
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Call<Q, A>> {
        self.calls.iter()
    }

    /// How many began.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether none began.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// How many took effect, as far as fates are known.
    #[must_use]
    pub fn committed(&self) -> usize {
        let took_effect = |call: &&Call<Q, A>| match call.came() {
            Came::Ok(_) => true,
            Came::Fail | Came::Info => false,
        };
        self.calls.iter().filter(took_effect).count()
    }

    /// When the last thing happened, ns.
    #[must_use]
    pub const fn nanos(&self) -> u64 {
        self.nanos
    }

    /// Which process each call is of, for a judge: a client goes on as another process after a call whose outcome nobody
    /// knows, because that call may still take effect while the client does other things.
    pub(super) fn processes(&self) -> Vec<usize> {
        let mut present = std::collections::BTreeMap::new();
        let mut processes = Vec::with_capacity(self.calls.len());
        let mut next = 0;
        for call in &self.calls {
            let process = *present.entry(call.client).or_insert_with(|| {
                next += 1;
                next - 1
            });
            processes.push(process);
            match call.came() {
                Came::Info => drop(present.remove(&call.client)),
                Came::Ok(_) | Came::Fail => {}
            }
        }
        processes
    }
}
