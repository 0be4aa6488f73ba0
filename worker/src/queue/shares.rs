//! How a worker's slots are shared between what waits in the queue: jobs and calls.
//!
//! Invariant: each kind gets at least one, so that neither starves the other, whatever the weights.

/// How much of the slots each kind gets, in proportion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weights {
    /// Of jobs.
    pub jobs: u32,
    /// Of calls that wait in the queue.
    pub calls: u32,
}

/// How many of each kind a worker may have in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// Jobs.
    pub jobs: usize,
    /// Calls from the queue.
    pub calls: usize,
}

/// Shares out all slots. Both kinds may still find slots that calls hold which came directly.
pub fn shares(total_slots: usize, weights: Weights) -> Shares {
    let (jobs, calls) = (weights.jobs as usize, weights.calls as usize);
    let of_jobs = total_slots * jobs / (jobs + calls).max(1);
    Shares {
        jobs: of_jobs.max(1),
        calls: total_slots.saturating_sub(of_jobs).max(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(total: usize, jobs: u32, calls: u32) -> (usize, usize) {
        let shares = shares(total, Weights { jobs, calls });
        (shares.jobs, shares.calls)
    }

    #[test]
    fn slots_are_shared_by_weight_and_nobody_gets_none() {
        assert_eq!(of(128, 1, 1), (64, 64));
        assert_eq!(of(8, 3, 1), (6, 2));
        assert_eq!(of(3, 1, 1), (1, 2));
        assert_eq!(of(1, 1, 1), (1, 1));
        assert_eq!(of(4, 100, 1), (3, 1));
        assert_eq!(of(4, 1, 100), (1, 4));
    }

    proptest! {
        #[test]
        fn the_shares_use_every_slot(total in 2_usize..4096, jobs in 1_u32..=100, calls in 1_u32..=100) {
            let (jobs, calls) = of(total, jobs, calls);
            prop_assert!(jobs >= 1 && calls >= 1);
            prop_assert!((total..=total + 1).contains(&(jobs + calls)));
        }
    }
}
