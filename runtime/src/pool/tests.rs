use super::*;

#[test]
fn every_task_is_done_once_in_many_tiny_runs() {
    for threads in 1..=4 {
        let pool = Pool::new(threads).unwrap();
        assert_eq!(pool.threads(), threads);
        for run in 0..2000usize {
            let count = run % 7;
            let done: [AtomicUsize; 7] = Default::default();
            pool.run(&|worker| {
                worker.share(count, |task| {
                    done[task].fetch_add(1, Ordering::Relaxed);
                })
            });
            for (task, times) in done.iter().enumerate() {
                assert_eq!(times.load(Ordering::Relaxed), usize::from(task < count), "{threads} threads, run {run}");
            }
        }
    }
}

#[test]
fn shares_without_barriers_between_them_do_not_mix() {
    for threads in 1..=4 {
        let pool = Pool::new(threads).unwrap();
        let done: Vec<[AtomicUsize; 5]> = (0..500).map(|_| Default::default()).collect();
        for _ in 0..4 {
            pool.run(&|worker| {
                for (turn, done) in done.iter().enumerate() {
                    worker.share(turn % 6, |task| {
                        done[task].fetch_add(1, Ordering::Relaxed);
                    });
                }
            });
        }
        for (turn, done) in done.iter().enumerate() {
            for (task, times) in done.iter().enumerate() {
                assert_eq!(times.load(Ordering::Relaxed), if task < turn % 6 { 4 } else { 0 });
            }
        }
    }
}

#[test]
fn every_task_of_every_part_is_done_once() {
    for threads in 1..=4 {
        let pool = Pool::new(threads).unwrap();
        let done: Vec<[[AtomicUsize; 5]; 4]> = (0..500).map(|_| Default::default()).collect();
        let parts_of = |turn: usize| turn % threads + 1;
        pool.run(&|worker| {
            for (turn, done) in done.iter().enumerate() {
                worker.share_parts(parts_of(turn), turn % 6, |part, task| {
                    done[part][task].fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        for (turn, done) in done.iter().enumerate() {
            for (part, done) in done.iter().enumerate() {
                for (task, times) in done.iter().enumerate() {
                    let want = usize::from(part < parts_of(turn) && task < turn % 6);
                    assert_eq!(times.load(Ordering::Relaxed), want, "{threads} threads, turn {turn}, part {part}");
                }
            }
        }
    }
}

#[test]
fn a_barrier_orders_what_comes_before_and_after() {
    for threads in 1..=4 {
        let pool = Pool::new(threads).unwrap();
        let wrong = AtomicUsize::new(0);
        let cells: Vec<AtomicUsize> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
        pool.run(&|worker| {
            for round in 1..=2000 {
                cells[worker.index()].store(round, Ordering::Relaxed);
                worker.barrier();
                if cells.iter().any(|c| c.load(Ordering::Relaxed) != round) {
                    wrong.fetch_add(1, Ordering::Relaxed);
                }
                worker.barrier();
            }
        });
        assert_eq!(wrong.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn workers_have_distinct_indices() {
    let pool = Pool::new(3).unwrap();
    let seen: [AtomicUsize; 3] = Default::default();
    pool.run(&|worker| {
        assert_eq!(worker.threads(), 3);
        seen[worker.index()].fetch_add(1, Ordering::Relaxed);
    });
    assert!(seen.iter().all(|s| s.load(Ordering::Relaxed) == 1));
}

#[test]
fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
    for threads in 1..=4 {
        let pool = Pool::new(threads).unwrap();
        for guilty in 0..threads {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                pool.run(&|worker| {
                    worker.barrier();
                    if worker.index() == guilty {
                        // Not `panic!`: that would print.
                        resume_unwind(Box::new("guilty"));
                    }
                    worker.barrier();
                    worker.barrier();
                });
            }));
            assert_eq!(*outcome.unwrap_err().downcast::<&str>().unwrap(), "guilty");
            let sum = AtomicUsize::new(0);
            pool.run(&|worker| {
                worker.share(10, |task| {
                    sum.fetch_add(task, Ordering::Relaxed);
                });
                worker.barrier();
                assert_eq!(sum.load(Ordering::Relaxed), 45);
            });
        }
    }
}

#[test]
fn a_run_inside_a_run_is_refused() {
    let pool = Pool::new(2).unwrap();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        pool.run(&|_| {
            let inner = catch_unwind(AssertUnwindSafe(|| pool.run(&|_| ())));
            assert!(inner.is_err());
        });
    }));
    assert!(outcome.is_ok());
}

#[test]
fn callers_take_turns() {
    let pool = Pool::new(2).unwrap();
    let inside = AtomicUsize::new(0);
    let wrong = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..200 {
                    pool.run(&|worker| {
                        if inside.fetch_add(1, Ordering::SeqCst) >= 2 {
                            wrong.fetch_add(1, Ordering::Relaxed);
                        }
                        worker.barrier();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    });
                }
            });
        }
    });
    assert_eq!(wrong.load(Ordering::Relaxed), 0);
}

#[test]
fn sleeping_threads_wake() {
    let pool = Pool::new(2).unwrap();
    for _ in 0..5 {
        std::thread::sleep(std::time::Duration::from_millis(2));
        let ran = AtomicUsize::new(0);
        pool.run(&|worker| {
            if worker.index() == 0 {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            worker.barrier();
            ran.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(ran.load(Ordering::Relaxed), 2);
    }
}

/// In a thread of its own, which stays bound.
#[test]
#[cfg(target_os = "linux")]
fn pinned_threads_have_one_processor_each() {
    std::thread::spawn(|| {
        let all = crate::machine::processors::by_core().unwrap();
        // The second pool is made by a thread that is bound already; the first run binds, not the pool.
        let unbound = crate::machine::processors::affinity();
        drop(Pool::pinned(2).unwrap());
        assert_eq!(crate::machine::processors::affinity(), unbound);
        for threads in [1, 3, 8] {
            let pool = Pool::pinned(threads).unwrap();
            assert!(pool.is_pinned());
            let found = Mutex::new(vec![None; threads]);
            pool.run(&|worker| found.lock().unwrap()[worker.index()] = crate::machine::processors::affinity());
            let want: Vec<_> = (0..threads).map(|i| Some(vec![all[i % all.len()]])).collect();
            assert_eq!(found.into_inner().unwrap(), want);
            assert_eq!(pool.shared.waiting.spins(), threads <= crate::machine::allowed_cpus());
        }
        assert!(!Pool::new(1).unwrap().is_pinned());
    })
    .join()
    .unwrap();
}
