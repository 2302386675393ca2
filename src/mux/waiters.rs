//! Who waits for the same thing: any number of tasks, of which each leaves once it waits no more.
//!
//! Owns no lock and wakes nobody: that is [`shared`](super::shared)'s. A waker may be the last to know its task, whose end runs
//! code of others', so none is dropped here either.

use std::collections::BTreeMap;
use std::task::{Context, Waker};

/// Wakers by the place of whoever waits, those that came first in front. Empty, it holds no memory.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    asleep: BTreeMap<u64, Waker>,
    last: u64,
}

impl Waiters {
    /// Remembers whoever waits, in a `place` that is its own for as long as it waits, however often it is woken. What is given
    /// back is of no use any more.
    pub(super) fn wait(&mut self, place: &mut Option<u64>, cx: &Context<'_>) -> Option<Waker> {
        let place = *place.get_or_insert_with(|| {
            self.last = self.last.wrapping_add(1);
            self.last
        });
        match self.asleep.get_mut(&place) {
            Some(waker) if waker.will_wake(cx.waker()) => None,
            Some(waker) => Some(std::mem::replace(waker, cx.waker().clone())),
            None => self.asleep.insert(place, cx.waker().clone()),
        }
    }

    /// Whoever has this place waits no more.
    pub(super) fn leave(&mut self, place: u64) -> Option<Waker> {
        self.asleep.remove(&place)
    }

    /// All of them, to be woken.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Waker> {
        std::mem::take(&mut self.asleep).into_values()
    }
}
