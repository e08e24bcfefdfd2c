//! Turns at the processors, shared fairly by bytes: start-time fair queueing.
//!
//! Each read has a [`Share`], whose clock is how many bytes it was promised. A piece of work begins, by that clock, where
//! the read's last one ended, but not before the piece that was let through last; of all that wait, the one that begins
//! first is next. So a read that comes with little to do passes what others asked for ahead, several large ones advance
//! side by side, and none waits for ever: whoever waits keeps its beginning while those of others grow.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;

/// What one read was promised. Shared by its tasks.
#[derive(Debug, Default)]
pub struct Share {
    /// Where its next piece begins, in bytes of the queue's clock.
    next: AtomicU64,
}

/// A number of turns at once, and who waits for one.
///
/// Lock order: held for the look-up only, never across an await.
#[derive(Debug)]
pub struct Turns(Mutex<State>);

#[derive(Debug)]
struct State {
    free: usize,
    /// Where the piece that was let through last began, in bytes.
    now: u64,
    /// How many have waited, so that equals come in order of arrival.
    arrivals: u64,
    waiting: BinaryHeap<Reverse<Waiter>>,
}

#[derive(Debug)]
struct Waiter {
    begin: u64,
    arrival: u64,
    call: oneshot::Sender<Turn>,
}

/// A turn; dropping it lets the next one through.
#[derive(Debug)]
pub struct Turn(Option<Arc<Turns>>);

impl Turns {
    /// So many at once.
    pub fn new(turns: usize) -> Self {
        let waiting = BinaryHeap::new();
        Self(Mutex::new(State { free: turns, now: 0, arrivals: 0, waiting }))
    }

    /// Waits for a turn for work on `bytes`. Dropping the future gives up the place.
    pub async fn take(self: &Arc<Self>, share: &Share, bytes: u64) -> Turn {
        let called = {
            let mut state = self.lock();
            let begin = share.next.load(Ordering::Relaxed).max(state.now);
            share.next.store(begin.saturating_add(bytes), Ordering::Relaxed);
            if state.free > 0 {
                state.free -= 1;
                state.now = begin;
                return Turn(Some(Arc::clone(self)));
            }
            let (call, called) = oneshot::channel();
            state.arrivals += 1;
            let arrival = state.arrivals;
            state.waiting.push(Reverse(Waiter { begin, arrival, call }));
            called
        };
        called.await.expect("whoever waits is called before the queue ends: it holds the queue")
    }

    /// Gives a turn that ended to the first who still waits.
    fn pass_on(self: Arc<Self>) {
        loop {
            let next = {
                let mut state = self.lock();
                let Some(Reverse(next)) = state.waiting.pop() else {
                    state.free += 1;
                    return;
                };
                state.now = state.now.max(next.begin);
                next
            };
            match next.call.send(Turn(Some(Arc::clone(&self)))) {
                Ok(()) => return,
                // Nobody waits there any more. The turn was not used: its drop must not pass it on a second time.
                Err(mut unused) => drop(unused.0.take()),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no code panics while it holds this lock")
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.0.take() {
            turns.pass_on();
        }
    }
}

impl PartialEq for Waiter {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Waiter {}

impl PartialOrd for Waiter {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiter {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.begin, self.arrival).cmp(&(other.begin, other.arrival))
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::future::BoxFuture;

    use super::*;

    /// Futures that wait for a turn, each with a name; gives the names of those that have one, in the order of turns.
    fn order(
        turns: &Arc<Turns>,
        mut waiting: Vec<(&'static str, BoxFuture<'static, Turn>)>,
        held: Turn,
    ) -> Vec<&'static str> {
        assert!(waiting.iter_mut().all(|(_, turn)| turn.now_or_never().is_none()), "the only turn is taken");
        let (mut held, mut names) = (held, Vec::new());
        while !waiting.is_empty() {
            drop(held);
            let ready = |(_, turn): &mut (_, BoxFuture<'static, Turn>)| turn.now_or_never();
            let (at, turn) = waiting.iter_mut().enumerate().find_map(|(at, one)| Some((at, ready(one)?))).unwrap();
            names.push(waiting.remove(at).0);
            held = turn;
        }
        drop(held);
        assert_eq!(turns.lock().free, 1);
        names
    }

    fn take(turns: &Arc<Turns>, share: &Arc<Share>, bytes: u64) -> BoxFuture<'static, Turn> {
        let (turns, share) = (Arc::clone(turns), Arc::clone(share));
        async move { turns.take(&share, bytes).await }.boxed()
    }

    #[test]
    fn a_small_read_passes_what_a_large_one_asked_for_ahead_and_large_ones_alternate() {
        let turns = Arc::new(Turns::new(1));
        let [one, other, small] = [(); 3].map(|()| Arc::new(Share::default()));
        let held = take(&turns, &one, 10).now_or_never().unwrap();
        let ask = |name, share, bytes| (name, take(&turns, share, bytes));
        let mut waiting = vec![ask("one 10", &one, 10), ask("one 20", &one, 10), ask("one 30", &one, 10)];
        // Each takes its place when it is polled first.
        waiting.iter_mut().for_each(|(_, turn)| assert!(turn.now_or_never().is_none()));
        waiting.extend([ask("other 0", &other, 10), ask("other 10", &other, 10), ask("small 0", &small, 1)]);
        let names = order(&turns, waiting, held);
        assert_eq!(names, ["other 0", "small 0", "one 10", "other 10", "one 20", "one 30"]);
    }

    #[test]
    fn nobody_waits_for_ever() {
        let turns = Arc::new(Turns::new(1));
        let large = Arc::new(Share::default());
        let held = take(&turns, &large, 10).now_or_never().unwrap();
        let mut waiting = take(&turns, &large, 10);
        assert!(waiting.as_mut().now_or_never().is_none());
        let mut held = Some(held);
        // One small read after another comes while it waits; their beginnings pass its own.
        for served in 0u64.. {
            let small = Arc::new(Share::default());
            let (mut first, mut second) = (take(&turns, &small, 6), take(&turns, &small, 6));
            assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
            drop(held.take());
            if waiting.as_mut().now_or_never().is_some() {
                assert!(served > 0, "small ones come first");
                return;
            }
            drop(first);
            held = second.now_or_never();
            assert!(served < 10);
        }
    }

    #[test]
    fn whoever_gives_up_passes_the_turn_on() {
        let turns = Arc::new(Turns::new(1));
        let share = Arc::new(Share::default());
        let held = take(&turns, &share, 1).now_or_never().unwrap();
        let [mut gone, mut called_and_gone, mut last] = [(); 3].map(|()| take(&turns, &share, 1));
        assert!([&mut gone, &mut called_and_gone, &mut last].into_iter().all(|turn| turn.now_or_never().is_none()));
        drop(gone);
        drop(held);
        // It was called, and has not looked.
        drop(called_and_gone);
        drop(last.now_or_never().expect("the last one is next"));
        assert_eq!(turns.lock().free, 1);
    }
}
