//! What all clients share, and how much of it one user may hold: what is used up for one is not
//! used up for the next.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A supply that users draw from.
pub(crate) struct Shares {
    total_max: usize,
    each_max: usize,
    held: Arc<Mutex<Held>>,
}

#[derive(Default)]
struct Held {
    total: usize,
    /// Only users who hold something: bounded by `total_max`.
    each: HashMap<String, usize>,
}

/// A part of a supply; given back when dropped.
pub(crate) struct Share {
    held: Arc<Mutex<Held>>,
    user: String,
    amount: usize,
}

impl Shares {
    pub(crate) fn new(total_max: usize, each_max: usize) -> Shares {
        Shares { total_max, each_max, held: Arc::default() }
    }

    /// Takes a part for a user; `None`: the user has his share, or nothing is left.
    pub(crate) fn take(&self, user: &str, amount: usize) -> Option<Share> {
        let mut held = lock(&self.held);
        let own = held.each.get(user).copied().unwrap_or_default();
        if held.total + amount > self.total_max || own + amount > self.each_max {
            return None;
        }
        held.total += amount;
        held.each.insert(user.to_owned(), own + amount);
        Some(Share { held: self.held.clone(), user: user.to_owned(), amount })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = lock(&self.held);
        held.total -= self.amount;
        if let Some(own) = held.each.get_mut(&self.user) {
            *own -= self.amount;
            if *own == 0 {
                held.each.remove(&self.user);
            }
        }
    }
}

// Counts change only by whole steps that cannot panic.
fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_cannot_take_the_share_of_another() {
        let shares = Shares::new(10, 6);
        let most = shares.take("eve", 6).unwrap();
        assert!(shares.take("eve", 1).is_none(), "she has her share");
        let other = shares.take("bob", 4).unwrap();
        assert!(shares.take("ann", 1).is_none(), "nothing is left");
        drop(most);
        assert!(shares.take("ann", 6).is_some());
        drop(other);
        assert!(lock(&shares.held).each.is_empty() && lock(&shares.held).total == 0);
    }
}
