//! Map operations: raw bpf(2), libbpf-rs, aya and podwire side by side. Run as root: `cargo bench --bench maps`.
#![allow(missing_docs, unsafe_code)]

mod map_contenders;

use std::hint::black_box;
use std::os::fd::AsFd;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use libbpf_rs::{MapCore, MapFlags};
use map_contenders::{BATCH, Contenders, ENTRIES, Key, Value, raw};
use podwire::maps::{Batch, Update};

/// Keys in random order, over and over.
struct Cycle<'a>(&'a [Key], usize);

impl<'a> Cycle<'a> {
    fn next(&mut self) -> &'a Key {
        self.1 = (self.1 + 1) % self.0.len();
        &self.0[self.1]
    }
}

fn lookups(criterion: &mut Criterion) {
    let all = Contenders::new();
    for (name, keys) in [("lookup", &all.keys), ("lookup miss", &all.absent)] {
        let mut group = criterion.benchmark_group(name);
        let mut cycle = Cycle(keys, 0);
        let mut value = Value::default();
        group.bench_function("raw", |bencher| {
            bencher.iter(|| black_box(raw::lookup(all.raw.as_fd(), cycle.next(), &mut value)));
        });
        group.bench_function("podwire", |bencher| bencher.iter(|| black_box(all.podwire.lookup(cycle.next()))));
        group.bench_function("podwire into", |bencher| {
            bencher.iter(|| black_box(all.podwire.lookup_into(cycle.next(), &mut value)));
        });
        group.bench_function("aya", |bencher| bencher.iter(|| black_box(all.aya.get(cycle.next(), 0))));
        group.bench_function("libbpf-rs", |bencher| {
            bencher.iter(|| black_box(all.libbpf.lookup(cycle.next(), MapFlags::ANY)));
        });
    }
}

fn writes(criterion: &mut Criterion) {
    let mut all = Contenders::new();
    let value = [1; 6];
    let mut group = criterion.benchmark_group("overwrite");
    let mut cycle = Cycle(&all.keys, 0);
    group.bench_function("raw", |bencher| bencher.iter(|| raw::update(all.raw.as_fd(), cycle.next(), &value)));
    group.bench_function("podwire", |bencher| {
        bencher.iter(|| all.podwire.insert(cycle.next(), &value, Update::Any).expect("is there"));
    });
    group.bench_function("aya", |bencher| {
        bencher.iter(|| all.aya.insert(cycle.next(), value, 0).expect("is there"));
    });
    group.bench_function("libbpf-rs", |bencher| {
        bencher.iter(|| {
            all.libbpf.update(cycle.next(), bytemuck::bytes_of(&value), MapFlags::ANY).expect("is there");
        });
    });
    group.finish();

    let key = all.absent[0];
    let mut group = criterion.benchmark_group("insert and delete");
    group.bench_function("raw", |bencher| {
        bencher.iter(|| raw::update(all.raw.as_fd(), &key, &value) && raw::delete(all.raw.as_fd(), &key));
    });
    group.bench_function("podwire", |bencher| {
        bencher.iter(|| {
            all.podwire.insert(&key, &value, Update::Any).expect("room");
            all.podwire.delete(&key).expect("removable")
        });
    });
    group.bench_function("aya", |bencher| {
        bencher.iter(|| {
            all.aya.insert(key, value, 0).expect("room");
            all.aya.remove(&key).expect("removable");
        });
    });
    group.bench_function("libbpf-rs", |bencher| {
        bencher.iter(|| {
            all.libbpf.update(&key, bytemuck::bytes_of(&value), MapFlags::ANY).expect("room");
            all.libbpf.delete(&key).expect("removable");
        });
    });
}

/// The whole map, key by key. Times are for all entries; the throughput is per entry.
fn iterations(criterion: &mut Criterion) {
    let all = Contenders::new();
    let mut group = criterion.benchmark_group("iterate");
    group.throughput(Throughput::Elements(ENTRIES.into())).sample_size(10);
    group.bench_function("raw", |bencher| {
        bencher.iter(|| raw::iterate(all.raw.as_fd(), |_, value| _ = black_box(value[0])));
    });
    group.bench_function("podwire walk", |bencher| {
        bencher.iter(|| all.podwire.walk(|_, value| _ = black_box(value[0])).expect("readable"));
    });
    group.bench_function("podwire iter (in batches)", |bencher| {
        bencher.iter(|| all.podwire.iter().filter(|entry| entry.is_ok()).count());
    });
    group.bench_function("aya", |bencher| bencher.iter(|| all.aya.iter().filter(|entry| entry.is_ok()).count()));
    group.bench_function("libbpf-rs", |bencher| {
        bencher.iter(|| all.libbpf.keys().filter_map(|key| all.libbpf.lookup(&key, MapFlags::ANY).ok()).count());
    });
}

/// The whole map in batches. aya has none, and those of libbpf-rs 0.27 lose entries of hash maps.
fn batches(criterion: &mut Criterion) {
    let all = Contenders::new();
    let mut group = criterion.benchmark_group("batch lookup");
    group.throughput(Throughput::Elements(ENTRIES.into())).sample_size(20);
    for size in [256, BATCH, 32_768] {
        let mut buffers = raw::Buffers::new(size);
        let mut batch = Batch::new(size).expect("not 0");
        group.bench_function(BenchmarkId::new("raw", size), |bencher| {
            bencher.iter(|| raw::batches(all.raw.as_fd(), &mut buffers, |_, value| _ = black_box(value[0])));
        });
        group.bench_function(BenchmarkId::new("podwire", size), |bencher| {
            bencher
                .iter(|| all.podwire.lookup_batch(&mut batch, |_, value| _ = black_box(value[0])).expect("readable"));
        });
    }
}

criterion_group!(maps, lookups, writes, iterations, batches);
criterion_main!(maps);
