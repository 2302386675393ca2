//! Windows and budgets: how many bytes may be sent, received and held.
//!
//! This module owns the arithmetic of SPDY/3.1 §2.6.8 and of the receive budget. It must not know frames or streams.

/// The window that each stream and the session start with, until SETTINGS or WINDOW_UPDATE change it (§2.6.8).
pub(super) const DEFAULT_WINDOW: u32 = 64 * 1024;
/// The least size to which the session's receive window is raised.
const SESSION_WINDOW: usize = 16 * 1024 * 1024;
/// A larger part of a window is granted again by now, even if it is less than half of the window. Otherwise a window
/// would have to be twice as large as what the path holds, however much that is.
const GRANT_AT: u32 = 1024 * 1024;
/// The least that a piece of unread DATA counts, in bytes, since its bookkeeping takes memory too.
pub(super) const MIN_CHARGE: usize = 256;

/// How much an unread piece of `len` bytes counts against the budgets.
pub(super) fn charge(len: usize) -> usize {
    if len == 0 { 0 } else { len.max(MIN_CHARGE) }
}

/// The size to which the session's receive window is raised, if the streams' windows together may grow by `growth`. The
/// streams' windows limit unread bytes. The session's window is granted again as soon as bytes arrive, so that an
/// unread stream cannot stop another.
pub(super) fn session_window(growth: usize) -> u32 {
    u32::try_from(SESSION_WINDOW.saturating_add(growth)).unwrap_or(u32::MAX).min(i32::MAX as u32)
}

/// How many bytes the peer lets us send. It is counted from the first byte, also while it is not obeyed yet. It is
/// below zero if SETTINGS have reduced it, or if bytes were sent before the peer showed that it has flow control.
#[derive(Debug)]
pub(super) struct SendWindow(i64);

impl SendWindow {
    pub(super) fn new(initial: u32) -> Self {
        Self(i64::from(initial))
    }

    pub(super) fn available(&self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.0 = self.0.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Adds `delta`. Returns `false` if the window would exceed 2^31 - 1, which is the peer's error.
    #[must_use]
    pub(super) fn update(&mut self, delta: u32) -> bool {
        let raised = self.0.saturating_add(i64::from(delta));
        let valid = raised <= i64::from(i32::MAX);
        if valid {
            self.0 = raised;
        }
        valid
    }

    /// Applies a change of the peer's INITIAL_WINDOW_SIZE by `difference`. Returns `false` as [`update`](Self::update)
    /// does.
    #[must_use]
    pub(super) fn shift(&mut self, difference: i64) -> bool {
        let shifted = self.0.saturating_add(difference);
        let valid = shifted <= i64::from(i32::MAX);
        if valid {
            self.0 = shifted;
        }
        valid
    }
}

/// How many bytes we let the peer send. It is counted from the first byte, also if the peer ignores it.
#[derive(Debug)]
pub(super) struct ReceiveWindow {
    granted: i64,
    target: u32,
    /// The target before it grew.
    start: u32,
    /// Bytes that can be granted, and were not yet. While the peer has shown no flow control this grows without limit:
    /// if the peer shows it later, it is owed all of them.
    owed: u64,
}

impl ReceiveWindow {
    /// Creates a window. The peer assumes `initial`, and it will be raised to `target`.
    pub(super) fn new(initial: u32, target: u32) -> Self {
        Self { granted: i64::from(initial), target, start: target, owed: u64::from(target.saturating_sub(initial)) }
    }

    /// Counts received bytes. Returns `false` if the peer has sent more than it may.
    pub(super) fn received(&mut self, bytes: usize) -> bool {
        self.granted = self.granted.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.granted >= 0
    }

    /// How many bytes the peer has sent beyond the window.
    pub(super) fn overdrawn(&self) -> u32 {
        u32::try_from(self.granted.saturating_neg()).unwrap_or(0)
    }

    /// Counts bytes that are no longer held, and may be granted again.
    pub(super) fn consumed(&mut self, bytes: usize) {
        self.owed = self.owed.saturating_add(bytes as u64);
    }

    pub(super) fn target(&self) -> u32 {
        self.target
    }

    /// By how much the window is larger than it was at first.
    pub(super) fn grown(&self) -> u32 {
        self.target.saturating_sub(self.start)
    }

    pub(super) fn grow(&mut self, by: u32) {
        self.target = self.target.saturating_add(by);
        self.owed = self.owed.saturating_add(u64::from(by));
    }

    /// Makes the window smaller by up to `by` of the bytes that are owed and not granted yet. Returns by how many.
    pub(super) fn shrink(&mut self, by: u32) -> u32 {
        let shrunk = by.min(u32::try_from(self.owed).unwrap_or(by));
        self.target = self.target.saturating_sub(shrunk);
        self.owed = self.owed.saturating_sub(u64::from(shrunk));
        shrunk
    }

    /// Gives up what the window has grown by, but for what `held` bytes need.
    pub(super) fn shrink_to_hold(&mut self, held: usize) {
        self.target = self.start.saturating_add(self.grown().min(u32::try_from(held).unwrap_or(u32::MAX)));
    }

    /// Whether half of the window, or [`GRANT_AT`], is owed, so that a WINDOW_UPDATE is due.
    pub(super) fn is_due(&self) -> bool {
        self.owed > 0 && self.owed >= u64::from(self.due_at())
    }

    /// Whether the last `bytes` that were received are those with which half of what makes an update due has come.
    pub(super) fn comes_near_due(&self, bytes: usize) -> bool {
        let mark = i64::from(self.target.saturating_sub(self.due_at() / 2));
        self.granted <= mark && self.granted.saturating_add(i64::try_from(bytes).unwrap_or(i64::MAX)) > mark
    }

    fn due_at(&self) -> u32 {
        (self.target / 2).min(GRANT_AT)
    }

    /// Grants the owed bytes and returns the delta for the WINDOW_UPDATE. More than 2^31 - 1 bytes need several calls.
    pub(super) fn grant(&mut self) -> u32 {
        let most = i64::from(i32::MAX).saturating_sub(self.granted.max(0));
        let delta = u32::try_from(self.owed.min(u64::try_from(most).unwrap_or(0))).unwrap_or(0);
        self.owed = self.owed.saturating_sub(u64::from(delta));
        self.granted = self.granted.saturating_add(i64::from(delta));
        delta
    }
}

/// What one stream holds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Holding {
    /// How many bytes are unread.
    pub(super) unread: usize,
    /// How much its unread bytes count.
    pub(super) charged: usize,
    /// By how much its window has grown.
    pub(super) grown: usize,
}

/// The unread bytes of a connection. Each stream has its own share, and what its window has grown by. Bytes beyond
/// these count against one pool. While the pool is spent, the socket is not read.
#[derive(Debug)]
pub(super) struct Budget {
    share: usize,
    pool: usize,
    held: usize,
    beyond: usize,
    grown: usize,
}

impl Budget {
    pub(super) fn new(share: usize, pool: usize) -> Self {
        Self { share, pool, held: 0, beyond: 0, grown: 0 }
    }

    /// Notes that a stream holds `after` instead of `before`.
    pub(super) fn moved(&mut self, before: Holding, after: Holding) {
        let moved = |all: usize, before: usize, after: usize| all.saturating_sub(before).saturating_add(after);
        self.beyond = moved(self.beyond, self.beyond_share(before), self.beyond_share(after));
        self.held = moved(self.held, before.charged, after.charged);
        self.grown = moved(self.grown, before.grown, after.grown);
    }

    /// How much of what a stream holds counts against the pool.
    pub(super) fn beyond_share(&self, holding: Holding) -> usize {
        // Small pieces count as larger than they are, but as no more than twice as large: smaller ones are joined.
        let own = self.share.saturating_add(holding.grown.saturating_mul(2));
        // A peer that ignores its window gets no more than the window for it, however large its pieces are.
        let window = self.share.saturating_add(holding.grown);
        holding.charged.saturating_sub(own).max(holding.unread.saturating_sub(window))
    }

    /// By how much the windows of all streams together have grown.
    pub(super) fn grown(&self) -> usize {
        self.grown
    }

    pub(super) fn is_spent(&self) -> bool {
        self.beyond > self.pool
    }

    pub(super) fn held(&self) -> usize {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_send_window_survives_every_update_and_shift() {
        fn property(initial: u32, steps: Vec<(u32, i32, u16)>) -> bool {
            let mut window = SendWindow::new(initial & 0x7fff_ffff);
            for (delta, shift, sent) in steps {
                for valid in [window.update(delta & 0x7fff_ffff), window.shift(i64::from(shift))] {
                    assert!(valid || window.0 <= i64::from(i32::MAX));
                }
                window.sent(usize::from(sent).min(window.available()));
            }
            window.0 <= i64::from(i32::MAX)
        }
        quickcheck::quickcheck(property as fn(u32, Vec<(u32, i32, u16)>) -> bool);
    }

    #[test]
    fn shrinking_settings_leave_a_window_below_zero_that_updates_mend() {
        let mut window = SendWindow::new(DEFAULT_WINDOW);
        window.sent(60_000);
        assert!(window.shift(1_000 - i64::from(DEFAULT_WINDOW)));
        assert_eq!(window.available(), 0);
        assert!(window.update(59_500));
        assert_eq!(window.available(), 500);
        assert!(!window.update(i32::MAX as u32), "beyond 2^31 - 1");
        assert_eq!(window.available(), 500);
    }

    #[test]
    fn what_is_granted_is_never_more_than_what_was_read() {
        let mut window = ReceiveWindow::new(100, 100);
        assert!(window.received(100));
        assert!(!window.is_due());
        window.consumed(50);
        assert!(window.is_due());
        assert_eq!(window.grant(), 50);
        assert!(window.received(50));
        assert!(!window.received(1), "one byte over");
    }

    #[test]
    fn a_large_window_is_granted_again_by_the_mebibyte() {
        let mut window = ReceiveWindow::new(8 * GRANT_AT, 8 * GRANT_AT);
        window.consumed(GRANT_AT as usize - 1);
        assert!(!window.is_due());
        window.consumed(1);
        assert!(window.is_due());
    }

    #[test]
    fn a_peer_that_shows_its_windows_late_is_owed_all_it_sent() {
        let mut window = ReceiveWindow::new(DEFAULT_WINDOW, DEFAULT_WINDOW);
        for _ in 0..10 {
            window.received(1 << 30);
            window.consumed(1 << 30);
        }
        let granted: u64 = std::iter::from_fn(|| window.is_due().then(|| u64::from(window.grant()))).sum();
        let kept = (10 << 30) - granted;
        assert!(kept < u64::from(DEFAULT_WINDOW / 2), "{kept} are not worth a frame yet");
        assert!(window.received(DEFAULT_WINDOW as usize / 2));
    }

    #[test]
    fn only_what_goes_beyond_the_shares_spends_the_pool() {
        let holding = |charged, grown| Holding { unread: charged, charged, grown };
        let mut budget = Budget::new(64, 100);
        budget.moved(Holding::default(), holding(64, 0));
        budget.moved(Holding::default(), holding(164, 0));
        assert_eq!((budget.held(), budget.is_spent()), (228, false));
        budget.moved(holding(164, 0), holding(165, 0));
        assert!(budget.is_spent());
        budget.moved(holding(165, 0), holding(165, 1));
        assert_eq!((budget.is_spent(), budget.grown()), (false, 1), "a window that has grown has room of its own");
        budget.moved(holding(165, 1), holding(166, 1));
        assert!(budget.is_spent(), "and no more than it has grown by");
        budget.moved(holding(166, 1), Holding::default());
        assert_eq!((budget.held(), budget.is_spent(), budget.grown()), (64, false, 0));
    }
}
