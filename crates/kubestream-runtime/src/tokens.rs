//! One-use tokens.
//!
//! This module owns how many tokens there may be, how long each can be used, and that each can be used once. It must not do IO or read
//! a clock, nor depend on what a token stands for.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(crate) struct Tokens<T> {
    live: HashMap<String, (Instant, T)>,
    /// All tokens in the order in which they expire, including used ones.
    order: VecDeque<(Instant, String)>,
    ttl: Duration,
    most: usize,
}

impl<T> Tokens<T> {
    pub(crate) fn new(ttl: Duration, most: usize) -> Self {
        Self { live: HashMap::new(), order: VecDeque::new(), ttl, most }
    }

    /// Returns `false` if there are too many tokens.
    #[must_use]
    pub(crate) fn insert(&mut self, token: String, what: T, now: Instant) -> bool {
        self.expire(now);
        if self.live.len() >= self.most {
            return false;
        }
        // A century is as good as for ever, and the clock may not be able to represent more.
        const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
        let until = now.checked_add(self.ttl.min(CENTURY)).unwrap_or(now);
        self.order.push_back((until, token.clone()));
        self.live.insert(token, (until, what));
        true
    }

    /// Returns what a token stands for, and uses the token up.
    pub(crate) fn take(&mut self, token: &str, now: Instant) -> Option<T> {
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
        // Used tokens are removed too, before they outnumber the others.
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
    fn a_token_can_be_used_once_and_until_it_expires() {
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
    fn the_number_of_live_tokens_is_limited() {
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
