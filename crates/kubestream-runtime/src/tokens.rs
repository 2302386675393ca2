//! One-use tokens, without IO and without a clock.
//!
//! Owns how many there are, how long each is good, and that none is good twice. What one stands for makes no difference to it.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(super) struct Tokens<T> {
    live: HashMap<String, (Instant, T)>,
    /// In the order in which they expire. Those that were used are still among them.
    order: VecDeque<(Instant, String)>,
    ttl: Duration,
    most: usize,
}

impl<T> Tokens<T> {
    pub(super) fn new(ttl: Duration, most: usize) -> Self {
        Self { live: HashMap::new(), order: VecDeque::new(), ttl, most }
    }

    /// `false`: there are too many.
    #[must_use]
    pub(super) fn insert(&mut self, token: String, what: T, now: Instant) -> bool {
        self.expire(now);
        if self.live.len() >= self.most {
            return false;
        }
        // A century is for ever, and more may be more than the clock can hold.
        const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
        let until = now.checked_add(self.ttl.min(CENTURY)).unwrap_or(now);
        self.order.push_back((until, token.clone()));
        self.live.insert(token, (until, what));
        true
    }

    /// What a token stands for, once.
    pub(super) fn take(&mut self, token: &str, now: Instant) -> Option<T> {
        self.expire(now);
        self.live.remove(token).map(|(_, what)| what)
    }

    fn expire(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(until, _)| *until <= now) {
            let Some((until, token)) = self.order.pop_front() else { return };
            if self.live.get(&token).is_some_and(|(live, _)| *live == until) {
                self.live.remove(&token);
            }
        }
        // Used ones leave too, before they are more than the others.
        if self.order.len() > self.live.len().saturating_mul(2).saturating_add(16) {
            let live = &self.live;
            self.order.retain(|(_, token)| live.contains_key(token));
        }
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    const TTL: Duration = Duration::from_secs(60);

    #[test]
    fn a_token_is_good_once_and_for_so_long() {
        let now = Instant::now();
        let mut tokens = Tokens::new(TTL, 10);
        assert!(tokens.insert("a".to_owned(), 1, now) && tokens.insert("b".to_owned(), 2, now));
        assert_eq!(tokens.take("c", now), None);
        assert_eq!(tokens.take("a", now + TTL - Duration::from_nanos(1)), Some(1));
        assert_eq!(tokens.take("a", now), None);
        assert_eq!(tokens.take("b", now + TTL), None);
        assert!(tokens.live.is_empty() && tokens.order.is_empty());
    }

    #[test]
    fn so_many_are_live_at_a_time() {
        let now = Instant::now();
        let mut tokens = Tokens::new(TTL, 2);
        assert!(tokens.insert("a".to_owned(), (), now) && tokens.insert("b".to_owned(), (), now));
        assert!(!tokens.insert("c".to_owned(), (), now));
        assert_eq!(tokens.take("a", now), Some(()));
        assert!(tokens.insert("c".to_owned(), (), now));
        assert!(tokens.insert("d".to_owned(), (), now + TTL), "the others have expired");
    }

    quickcheck! {
        fn what_is_kept_is_bounded_by_what_is_live(steps: Vec<(bool, u8, u8)>) -> bool {
            let mut now = Instant::now();
            let mut tokens = Tokens::new(TTL, 20);
            steps.into_iter().all(|(insert, token, seconds)| {
                now += Duration::from_secs(u64::from(seconds % 8));
                let token = format!("{token}-{:?}", now);
                if insert {
                    let _ = tokens.insert(token, (), now);
                } else {
                    let live = tokens.live.keys().next().cloned().unwrap_or(token);
                    tokens.take(&live, now);
                }
                tokens.live.len() <= 20 && tokens.order.len() <= 2 * tokens.live.len() + 17
            })
        }
    }
}
