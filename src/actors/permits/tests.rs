//! Turns, limits, and waiters that leave; then any order of all of it.

use super::*;
use futures_util::FutureExt as _;
use std::pin::Pin;

type Acquiring<'a> = Pin<Box<dyn Future<Output = Permit> + 'a>>;

fn action(name: &str) -> ActionId {
    name.parse().unwrap()
}

/// A waiter in its queue.
fn waiting<'a>(permits: &'a Arc<Permits>, action: &'a ActionId) -> Acquiring<'a> {
    let mut acquiring: Acquiring<'a> = Box::pin(permits.acquire(action));
    assert!(acquiring.as_mut().now_or_never().is_none());
    acquiring
}

fn is_granted(acquiring: &mut Acquiring<'_>) -> Option<Permit> {
    acquiring.as_mut().now_or_never()
}

fn assert_empty(permits: &Permits, free: usize) {
    let table = permits.lock();
    assert_eq!((table.free, table.held), (free, 0));
    assert!(table.actions.is_empty() && table.round.is_empty());
}

/// Red with one queue for all: the fast action then comes last.
#[test]
fn permits_alternate_by_action_in_order() {
    let permits = Permits::new(1, usize::MAX);
    let (slow, fast, third) = (action("slow"), action("fast"), action("third"));
    let mut held = permits.try_acquire(&slow).unwrap();
    assert!(permits.try_acquire(&fast).is_none());
    let mut crowd: Vec<_> = (0..3).map(|_| waiting(&permits, &slow)).collect();
    let mut others = vec![waiting(&permits, &fast), waiting(&permits, &fast)];
    others.push(waiting(&permits, &third));
    let mut order = Vec::new();
    for _ in 0..6 {
        drop(held);
        let all = crowd.iter_mut().chain(others.iter_mut()).enumerate();
        let mut granted: Vec<_> = all
            .filter_map(|(n, waiter)| Some((n, is_granted(waiter)?)))
            .collect();
        assert_eq!((granted.len(), permits.in_use()), (1, 1));
        let (number, permit) = granted.remove(0);
        // A future that is ready is never asked again.
        match number {
            n if n < 3 => crowd[n] = Box::pin(std::future::pending()),
            n => others[n - 3] = Box::pin(std::future::pending()),
        }
        order.push(number);
        held = permit;
    }
    // slow, fast, third, slow, fast, slow
    assert_eq!(order, [0, 3, 5, 1, 4, 2]);
    drop(held);
    assert_empty(&permits, 1);
}

#[test]
fn action_at_limit_leaves_permits_to_others() {
    let permits = Permits::new(3, 2);
    let (slow, fast) = (action("slow"), action("fast"));
    let first = permits.try_acquire(&slow).unwrap();
    let second = permits.try_acquire(&slow).unwrap();
    assert!(permits.try_acquire(&slow).is_none());
    let mut third = waiting(&permits, &slow);
    let other = permits.try_acquire(&fast).unwrap();
    drop(other);
    assert!(is_granted(&mut third).is_none());
    drop(first);
    let third = is_granted(&mut third).unwrap();
    drop((second, third));
    assert_empty(&permits, 3);
}

/// Red if the place of a dropped waiter stays in the queue, and where a
/// permit on its way to it is lost.
#[test]
fn leaving_waiter_passes_its_turn_on() {
    let permits = Permits::new(1, 1);
    let (slow, fast) = (action("slow"), action("fast"));
    let held = permits.try_acquire(&slow).unwrap();
    let (gone, served) = (waiting(&permits, &fast), waiting(&permits, &slow));
    let mut last = waiting(&permits, &fast);
    drop(gone);
    drop(held);
    // The permit is in the channel of `last`, in whose action `gone` waited.
    let mut served = served;
    assert!(is_granted(&mut served).is_none());
    let permit = is_granted(&mut last).unwrap();
    drop(permit);
    // Granted, and dropped before it was seen.
    drop(served);
    assert_empty(&permits, 1);
    let held = permits.try_acquire(&slow).unwrap();
    drop(waiting(&permits, &fast));
    assert_eq!(permits.lock().actions.len(), 1);
    assert!(permits.lock().round.is_empty());
    drop(held);
    assert_empty(&permits, 1);
}

mod properties {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[derive(Clone, Debug)]
    enum Step {
        Come(usize),
        /// The waiter with this index leaves, whether or not it was served.
        Leave(usize),
        GiveBack(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..4_usize).prop_map(Step::Come),
            1 => any::<usize>().prop_map(Step::Leave),
            3 => any::<usize>().prop_map(Step::GiveBack),
        ];
        prop::collection::vec(step, 1..200)
    }

    proptest! {
        /// No permit is lost or doubled, no action exceeds its limit, none waits while a
        /// permit is free for it, and within an action no waiter is overtaken.
        #[test]
        fn permits_stay_fair_under_any_schedule(
            steps in steps(), total in 1..5_usize, per_action in 1..5_usize,
        ) {
            let names: Vec<_> = (0..4).map(|n| action(&n.to_string())).collect();
            let permits = Permits::new(total, per_action);
            let mut waiters: VecDeque<(usize, Acquiring<'_>)> = VecDeque::new();
            let mut held: Vec<(usize, Permit)> = Vec::new();
            for step in steps {
                match step {
                    Step::Come(n) => waiters.push_back((n, Box::pin(permits.acquire(&names[n])))),
                    Step::Leave(n) if !waiters.is_empty() => {
                        drop(waiters.remove(n % waiters.len()));
                    }
                    Step::GiveBack(n) if !held.is_empty() => {
                        drop(held.swap_remove(n % held.len()));
                    }
                    _ => {}
                }
                let mut passed = [false; 4];
                let mut still = VecDeque::new();
                for (n, mut waiter) in waiters {
                    match waiter.as_mut().now_or_never() {
                        Some(permit) => {
                            prop_assert!(!passed[n], "overtaken");
                            held.push((n, permit));
                        }
                        None => {
                            passed[n] = true;
                            still.push_back((n, waiter));
                        }
                    }
                }
                waiters = still;
                let of = |n: usize| held.iter().filter(|(m, _)| *m == n).count();
                prop_assert!(held.len() <= total);
                prop_assert_eq!(permits.in_use(), held.len());
                for (n, _) in &waiters {
                    prop_assert!(held.len() == total || of(*n) == per_action);
                }
                for n in 0..4 {
                    prop_assert!(of(n) <= per_action);
                }
                let known = permits.lock().actions.len();
                let any = |n: &usize| of(*n) > 0 || waiters.iter().any(|(m, _)| m == n);
                prop_assert_eq!(known, (0..4).filter(any).count());
            }
            drop((waiters, held));
            assert_empty(&permits, total);
        }
    }
}
