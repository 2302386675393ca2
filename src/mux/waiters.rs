//! The tasks that wait for the same event. There may be any number of them, and each can leave before it is woken.
//!
//! This module owns the list of wakers. It must not lock, wake or drop a waker, which is [`shared`](super::shared)'s
//! job: dropping the last waker of a task can drop the task, and that runs foreign code.

use std::collections::BTreeMap;
use std::task::{Context, Waker};

/// Wakers, each under the number of its task, in the order in which the tasks arrived. An empty list holds no memory.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    asleep: BTreeMap<u64, Waker>,
    last: u64,
}

impl Waiters {
    /// Remembers the waker of a task. The task keeps the same `place` in the list until it leaves, however often it is
    /// woken. The caller must drop the returned waker, which is no longer needed, outside the lock.
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

    /// Removes the waker with this place. The caller must drop it outside the lock.
    pub(super) fn leave(&mut self, place: u64) -> Option<Waker> {
        self.asleep.remove(&place)
    }

    /// Takes all wakers, to be woken.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Waker> {
        std::mem::take(&mut self.asleep).into_values()
    }
}
