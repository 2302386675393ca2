//! Counts memory as the allocator does, and makes tests take turns, so that no test counts another's.
//!
//! A test binary that counts must declare [`ALLOCATOR`] as its global allocator. Otherwise [`turn`] panics.

use std::alloc::System;
use std::future::Future;
use std::hint::black_box;
use std::sync::{Mutex, MutexGuard, PoisonError};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

pub type Counting = StatsAlloc<System>;

pub static ALLOCATOR: &Counting = &INSTRUMENTED_SYSTEM;

/// The turn of a test. It ends when this is dropped.
///
/// # Panics
/// Panics if nothing is counted.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let before = Region::new(ALLOCATOR);
    drop(black_box(Box::new(7)));
    assert!(before.change().bytes_allocated > 0, "the global allocator of this test binary counts nothing");
    turn
}

/// Runs a transcript in virtual time, which passes only while no task can run.
pub fn play<T>(transcript: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(transcript)
}

/// Bytes that have been allocated since `since` began and are still held.
pub fn grown(since: &Region<'_, System>) -> usize {
    let change = since.change();
    change.bytes_allocated.saturating_sub(change.bytes_deallocated)
}
