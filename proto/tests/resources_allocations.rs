//! The common arithmetic on resources does not allocate, counted by the allocator itself.

#![expect(
    unsafe_code,
    reason = "an allocator that counts can only be written as one"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use meros_proto::resources::Resources;

/// The allocator of the system, counting per thread so that other tests do not disturb.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is passed on unchanged to the allocator of the system, which fulfils the
// contract; counting touches only a thread-local cell without destructor and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations_of<T>(work: impl FnOnce() -> T) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    black_box(work());
    ALLOCATIONS.with(Cell::get) - before
}

fn resources(text: &str) -> Resources {
    text.parse().expect("a resource text of this test")
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations_of(|| Box::new(7)), 1);
}

#[test]
fn arithmetic_in_place_on_four_entries_does_not_allocate() {
    let mut free = resources("cpus:24;mem:4096;disk:4096;ports:[31000-32000]");
    let task = resources("cpus:0.1;mem:32;disk:10");
    assert_eq!(allocations_of(|| free.contains(&task)), 0);
    assert_eq!(allocations_of(|| free.checked_sub_assign(&task)), 0);
    assert_eq!(allocations_of(|| free.checked_add_assign(&task)), 0);
    assert_eq!(allocations_of(|| free.clone()), 0);
    assert_eq!(allocations_of(|| free.checked_sub(&task)), 0);
    let first_ports = resources("cpus:1;ports:[31000-31003]");
    assert_eq!(allocations_of(|| free.checked_sub(&first_ports)), 0);
}

#[test]
fn fitting_a_want_of_scalars_does_not_allocate() {
    let offer = resources("cpus:24;cpus(ads):1;mem:4096;ports:[31000-32000]");
    let want = resources("cpus:2;mem:32");
    assert_eq!(allocations_of(|| offer.take_fitting(&want)), 0);
}
