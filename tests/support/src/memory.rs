//! Memory as the allocator counts it, and tests that take turns so that it is theirs.
//!
//! Owns the counting. A test binary that counts must declare [`ALLOCATOR`] as its global allocator: [`turn`] panics where it does not.

use std::alloc::System;
use std::future::Future;
use std::hint::black_box;
use std::sync::{Mutex, MutexGuard, PoisonError};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

pub type Counting = StatsAlloc<System>;

pub static ALLOCATOR: &Counting = &INSTRUMENTED_SYSTEM;

/// The turn of one test, for as long as it is held.
///
/// # Panics
/// Where nothing is counted.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let before = Region::new(ALLOCATOR);
    drop(black_box(Box::new(7)));
    assert!(before.change().bytes_allocated > 0, "the global allocator of this test binary counts nothing");
    turn
}

/// Plays a transcript, in time that passes only while nobody can move.
pub fn play<T>(transcript: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(transcript)
}

/// Bytes that are held now and were not when `since` began.
pub fn grown(since: &Region<'_, System>) -> usize {
    let change = since.change();
    change.bytes_allocated.saturating_sub(change.bytes_deallocated)
}
