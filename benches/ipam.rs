//! What an allocation and its release cost: in memory and on disk, in a pool that is empty and in one that holds 100,000.
//!
//! `cargo bench --bench ipam`. The figures on disk are those of the file system under the temporary directory (set TMPDIR to choose another).

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ipnetwork::IpNetwork;
use podwire::ipam::{Families, Ipam, IpamConfig, Lifetime};

const FILLS: [usize; 2] = [10, 100_000];
const PERMANENT: Lifetime = Lifetime::Permanent;

fn config() -> IpamConfig {
    let ranges = ["10.0.0.0/8", "fd00::/64"].map(|text| text.parse::<IpNetwork>().expect("a network"));
    ranges.into_iter().fold(IpamConfig::new(), IpamConfig::range).reuse_delay(Duration::ZERO)
}

fn fill(ipam: &Ipam, pods: usize) {
    let names: Vec<_> = (0..pods).map(|pod| format!("default/pod-{pod}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    for chunk in names.chunks(10_000) {
        ipam.allocate_many(chunk, Families::All, PERMANENT).expect("free");
    }
}

/// One pod comes and goes: both families.
fn allocate_and_release(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("allocate and release");
    for pods in FILLS {
        let ipam = Ipam::new(config()).expect("a manager");
        fill(&ipam, pods);
        group.bench_function(BenchmarkId::new("in memory", pods), |bencher| bencher.iter(|| come_and_go(&ipam)));
        let dir = tempfile::tempdir().expect("a directory");
        let (ipam, _) = Ipam::open(dir.path(), config()).expect("opens");
        fill(&ipam, pods);
        group.bench_function(BenchmarkId::new("on disk", pods), |bencher| bencher.iter(|| come_and_go(&ipam)));
        group.bench_function(BenchmarkId::new("on disk, 8 threads", pods), |bencher| {
            bencher.iter_custom(|rounds| {
                let started = Instant::now();
                std::thread::scope(|scope| {
                    for worker in 0..8 {
                        let ipam = &ipam;
                        scope.spawn(move || (worker..rounds).step_by(8).for_each(|_| come_and_go(ipam)));
                    }
                });
                started.elapsed()
            });
        });
    }
    group.finish();
}

fn come_and_go(ipam: &Ipam) {
    let pod = ipam.allocate_next("default/web", Families::All, PERMANENT).expect("free");
    let addresses: Vec<_> = pod.addresses().collect();
    black_box(ipam.release_all(&addresses).expect("allocated"));
}

/// From nothing to 100,000 pods, and back from disk.
fn a_hundred_thousand(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("100000 pods");
    group.sample_size(10).throughput(Throughput::Elements(100_000));
    group.bench_function("in memory", |bencher| {
        bencher.iter_batched_ref(
            || Ipam::new(config()).expect("a manager"),
            |ipam| fill(ipam, 100_000),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("on disk, 10,000 a write", |bencher| {
        bencher.iter_batched_ref(
            || tempfile::tempdir().expect("a directory"),
            |dir| fill(&Ipam::open(dir.path(), config()).expect("opens").0, 100_000),
            BatchSize::PerIteration,
        );
    });
    let dir = tempfile::tempdir().expect("a directory");
    fill(&Ipam::open(dir.path(), config()).expect("opens").0, 100_000);
    group.bench_function("open", |bencher| bencher.iter(|| Ipam::open(dir.path(), config()).expect("opens")));
    group.finish();
}

criterion_group!(benches, allocate_and_release, a_hundred_thousand);
criterion_main!(benches);
