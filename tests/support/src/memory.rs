//! Memory as the allocator counts it, and tests that take turns so that it is theirs.
//!
//! Owns the global allocator of the test binaries that name this module.

use std::alloc::System;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
pub(crate) static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The turn of one test, for as long as it is held.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Plays a transcript, in time that passes only while nobody can move.
pub(crate) fn play<T>(transcript: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(transcript)
}

/// Bytes that are held now and were not when `since` began.
pub(crate) fn grown(since: &Region<'_, System>) -> usize {
    let change = since.change();
    change.bytes_allocated.saturating_sub(change.bytes_deallocated)
}
