//! Who has to go when a bucket of `podwire_ct` is full, and where a newcomer stands: with the program that inserts, which asks
//! for a place as the datapath does. Needs root and a bpffs.

#[path = "common/bpf.rs"]
mod bpf;
#[path = "common/conntrack.rs"]
mod conntrack;

use conntrack::{Table, tuple};
use podwire::abi::CT_WAYS;
use podwire::conntrack::CtFilter;
use podwire::tables::{Connection, CtMap, CtState};

const NEW: CtState = CtState::New;
const OPEN: CtState = CtState::Established;
const CLOSING: CtState = CtState::Closing;
const OVER: CtState = CtState::Closed;

/// What stands in a place: a state, and the seconds until it ends.
type Stands = (CtState, i64);

/// The two buckets of a table.
const HOME: u32 = 0;
const OTHER: u32 = 1;

/// Connections of a home and another bucket, as many as one asks for.
fn of(table: &Table, home: u32, other: u32) -> impl Iterator<Item = u32> {
    (0..).filter(move |number| table.conntrack.connections().places(&tuple(*number)) == [home, other])
}

/// Two full buckets, place by place, and a newcomer at home in the first.
struct Full {
    table: Table,
    home: Vec<u32>,
    other: Vec<u32>,
    newcomer: u32,
}

impl Full {
    fn new(home: [Stands; CT_WAYS], other: &[Stands]) -> Self {
        let table = Table::new(2);
        let mut at_home = of(&table, HOME, OTHER);
        let numbers: Vec<u32> = at_home.by_ref().take(CT_WAYS).collect();
        let newcomer = at_home.next().expect("there is no end of them");
        let others: Vec<u32> = of(&table, OTHER, HOME).take(other.len()).collect();
        drop(at_home);
        for (number, (state, seconds)) in numbers.iter().zip(home).chain(others.iter().zip(other.iter().copied())) {
            table.put(*number, state, seconds);
        }
        assert_eq!((table.in_bucket(HOME), table.in_bucket(OTHER)), (numbers.clone(), others.clone()));
        assert_eq!((table.away(HOME), table.away(OTHER)), (0, 0));
        Self { table, home: numbers, other: others, newcomer }
    }

    /// Lets the newcomer in. Says who went, by bucket and place, and in which bucket the newcomer stands.
    fn let_in(&self) -> (Vec<(u32, usize)>, u32) {
        self.table.put(self.newcomer, OPEN, 500);
        let (home, other) = (self.table.in_bucket(HOME), self.table.in_bucket(OTHER));
        let all = self.home.iter().map(|number| (HOME, number)).chain(self.other.iter().map(|number| (OTHER, number)));
        let gone = all.filter(|(_, number)| !home.contains(number) && !other.contains(number));
        let place = |bucket, number| {
            let numbers = if bucket == HOME { &self.home } else { &self.other };
            (bucket, numbers.iter().position(|own| own == number).expect("one of them"))
        };
        let gone = gone.map(|(bucket, number)| place(bucket, number)).collect();
        let stands = if home.contains(&self.newcomer) { HOME } else { OTHER };
        assert!(stands == HOME || other.contains(&self.newcomer), "it has a place");
        assert_eq!(self.table.away(HOME), u32::from(stands == OTHER));
        assert_eq!(self.table.away(OTHER), 0);
        let found = self.table.conntrack.connections().lookup(&tuple(self.newcomer)).expect("readable");
        assert_eq!(found.map(|connection| connection.opener), Some(tuple(self.newcomer)));
        (gone, stands)
    }
}

/// Eight open connections that end one after the other, later than any that a test puts among them.
fn open() -> [Stands; CT_WAYS] {
    std::array::from_fn(|place| (OPEN, 3000 + 100 * place as i64))
}

/// The same with others at some places.
fn with(others: &[(usize, Stands)]) -> [Stands; CT_WAYS] {
    let mut all = open();
    for (place, stands) in others {
        all[*place] = *stands;
    }
    all
}

#[test]
fn who_is_over_goes_first_at_home() {
    let full = Full::new(with(&[(2, (NEW, -9)), (3, (OVER, 500)), (4, (OPEN, -9))]), &with(&[(0, (OVER, 1))]));
    assert_eq!(full.let_in(), (vec![(HOME, 3)], HOME));
}

#[test]
fn then_a_free_place_in_the_other_bucket() {
    let full = Full::new(with(&[(2, (NEW, -9)), (4, (OPEN, -9))]), &open()[..7]);
    assert_eq!(full.let_in(), (vec![], OTHER));
}

#[test]
fn then_who_is_over_in_the_other_bucket() {
    let full = Full::new(with(&[(2, (NEW, -9)), (4, (OPEN, -9))]), &with(&[(1, (NEW, -9)), (6, (OVER, 9000))]));
    assert_eq!(full.let_in(), (vec![(OTHER, 6)], OTHER));
}

#[test]
fn then_who_has_ended_or_never_got_an_answer_at_home() {
    // What has ended before what has not.
    let full = Full::new(with(&[(2, (NEW, 500)), (4, (OPEN, -9))]), &with(&[(1, (NEW, -9)), (6, (OPEN, -9))]));
    assert_eq!(full.let_in(), (vec![(HOME, 4)], HOME));
    let full = Full::new(with(&[(2, (NEW, 9000))]), &with(&[(1, (NEW, -9)), (6, (OPEN, -9))]));
    assert_eq!(full.let_in(), (vec![(HOME, 2)], HOME));
    let full = Full::new(with(&[(7, (CLOSING, -9))]), &with(&[(1, (NEW, -9))]));
    assert_eq!(full.let_in(), (vec![(HOME, 7)], HOME));
}

#[test]
fn then_who_has_ended_or_never_got_an_answer_in_the_other_bucket() {
    let full = Full::new(open(), &with(&[(1, (NEW, 500)), (6, (OPEN, -9))]));
    assert_eq!(full.let_in(), (vec![(OTHER, 6)], OTHER));
    let full = Full::new(open(), &with(&[(5, (NEW, 9000))]));
    assert_eq!(full.let_in(), (vec![(OTHER, 5)], OTHER));
}

#[test]
fn nobody_goes_to_an_other_bucket_whose_lock_is_held() {
    // Neither to its free place, nor to that of one who is over.
    for other in [&open()[..7], &with(&[(6, (OVER, 9000))])] {
        let full = Full::new(with(&[(4, (OPEN, -9))]), other);
        assert_eq!(full.table.while_locked(OTHER, || full.let_in()), (vec![(HOME, 4)], HOME));
    }
    // The lock of one who needs nothing there is given back.
    let full = Full::new(with(&[(3, (OVER, 500))]), &open());
    assert_eq!(full.let_in(), (vec![(HOME, 3)], HOME));
    full.table.empty_and_check();
}

/// Or whoever sends many first packets would know which of them is kept.
#[test]
fn among_those_who_never_got_an_answer_chance_decides() {
    let table = Table::new(1);
    let index = table.conntrack.connections().index();
    let tags = || index.read(0).expect("the only bucket").tag;
    (0..CT_WAYS as u32).for_each(|number| table.put(number, NEW, 9000));
    let mut given_up = [0; CT_WAYS];
    for number in 100..300 {
        let before = tags();
        table.put(number, NEW, 9000);
        for (way, tag) in tags().into_iter().enumerate() {
            given_up[way] += u32::from(tag != before[way]);
        }
    }
    assert!(given_up.iter().all(|times| *times > 0), "{given_up:?}");
}

#[test]
fn at_last_who_would_end_first_at_home() {
    let full = Full::new(with(&[(5, (OPEN, 1000)), (6, (CLOSING, 900))]), &with(&[(0, (OPEN, 100))]));
    assert_eq!(full.let_in(), (vec![(HOME, 6)], HOME));
    // Whose other claim lasts longer is not the first.
    let full = Full::new(open(), &open());
    assert_eq!(full.let_in(), (vec![(HOME, 0)], HOME));
}

/// Of more places than entries.
#[test]
fn where_no_entry_is_free_somebody_in_the_newcomers_buckets_goes() {
    let table = Table::with(2, 4, &[]);
    let all: Vec<u32> = of(&table, HOME, OTHER).take(6).collect();
    for (number, (state, seconds)) in all.iter().zip([(OPEN, 300), (NEW, 900), (OPEN, 200), (OVER, 900)]) {
        table.put(*number, state, seconds);
    }
    assert_eq!(table.conntrack.connections().used().expect("readable"), 4);
    let stand = |expected: &[usize]| {
        let numbers: Vec<u32> = expected.iter().map(|place| all[*place]).collect();
        assert_eq!(table.numbers(), numbers);
    };
    table.put(all[4], OPEN, 400);
    stand(&[0, 1, 2, 4]);
    table.put(all[5], OPEN, 500);
    stand(&[0, 2, 4, 5]);
    // Also where the newcomer's home has room: it gets the place with the entry.
    let newcomer = of(&table, OTHER, HOME).next().expect("there is no end of them");
    table.put(newcomer, OPEN, 600);
    assert!(table.in_bucket(OTHER).is_empty());
    let mut expected = [newcomer, all[0], all[4], all[5]];
    expected.sort_unstable();
    assert_eq!(table.in_bucket(HOME), expected);
    assert_eq!((table.away(HOME), table.away(OTHER)), (0, 1));
}

/// One of the next sixteen buckets gives an entry up.
#[test]
fn where_no_entry_is_free_neighbours_give_one_up() {
    let table = Table::with(64, 3, &[]);
    let at = |home, other| of(&table, home, other).next().expect("there is no end of them");
    let (open, neighbour, unanswered) = (at(4, 40), at(5, 41), at(20, 42));
    table.put(open, OPEN, 100);
    table.put(neighbour, OPEN, 50);
    table.put(unanswered, NEW, 9000);
    // Rather than an open one of its own, or an open one next door.
    let newcomer = of(&table, 4, 40).nth(1).expect("there is no end of them");
    table.put(newcomer, OPEN, 300);
    assert_eq!((table.in_bucket(4).len(), table.in_bucket(5).len(), table.in_bucket(20).len()), (2, 1, 0));
    // When only open ones are left, its own that would end first.
    let newcomer = of(&table, 4, 40).nth(2).expect("there is no end of them");
    table.put(newcomer, OPEN, 300);
    assert!(!table.numbers().contains(&open) && table.numbers().contains(&neighbour));
    // Or a neighbour's, where it has none.
    let newcomer = at(3, 50);
    table.put(newcomer, OPEN, 300);
    assert_eq!((table.in_bucket(3), table.in_bucket(4).len(), table.in_bucket(5).len()), (vec![newcomer], 1, 1));
    // Who has no neighbours with any waits for an entry to be collected.
    let lonely = at(30, 50);
    let refused = table.conntrack.insert(&Connection::new(tuple(lonely))).expect_err("no entry in reach");
    assert_eq!(refused.kind(), podwire::ErrorKind::Exhausted);
    assert_eq!(table.numbers().len(), 3);
}

/// A program that holds the lock is about to change what it guards: nothing is taken from there, and the next one is asked.
#[test]
fn a_neighbour_whose_lock_is_held_keeps_its_entries() {
    let table = Table::with(64, 2, &[]);
    let at = |home, other| of(&table, home, other).next().expect("there is no end of them");
    let (near, far, newcomer) = (at(5, 41), at(6, 42), at(4, 40));
    table.put(near, NEW, 9000);
    table.put(far, NEW, 9000);
    table.while_locked(5, || {
        table.put(newcomer, NEW, 9000);
        assert_eq!((table.in_bucket(4), table.in_bucket(5), table.in_bucket(6)), (vec![newcomer], vec![near], vec![]));
        // Nor where there is no other to ask.
        assert!(table.conntrack.remove(&tuple(newcomer)).expect("removable"));
        table.put(far, NEW, 9000);
        table.while_locked(6, || {
            let refused = table.conntrack.insert(&Connection::new(tuple(newcomer))).expect_err("no entry in reach");
            assert_eq!(refused.kind(), podwire::ErrorKind::Exhausted);
        });
        assert_eq!((table.in_bucket(5), table.in_bucket(6)), (vec![near], vec![far]));
    });
    table.put(newcomer, NEW, 9000);
    assert_eq!((table.in_bucket(4), table.in_bucket(5), table.in_bucket(6)), (vec![newcomer], vec![], vec![far]));
    table.empty_and_check();
}

/// Behind the last bucket comes the first one.
#[test]
fn the_neighbours_of_the_last_buckets_are_the_first_ones() {
    let table = Table::with(64, 1, &[]);
    let at = |home, other| of(&table, home, other).next().expect("there is no end of them");
    for (neighbour, home) in [(1, 62), (13, 62)] {
        table.put(at(neighbour, 40), NEW, 9000);
        let newcomer = at(home, 50);
        table.put(newcomer, OPEN, 300);
        assert_eq!(table.numbers(), [newcomer]);
        assert!(table.conntrack.remove(&tuple(newcomer)).expect("removable"));
    }
}

#[test]
fn a_table_of_one_bucket_gives_every_newcomer_a_place() {
    let table = Table::new(1);
    for number in 0..100 {
        table.put(number, OPEN, 1000 + i64::from(number));
        assert!(table.numbers().contains(&number), "{number}");
    }
    assert_eq!(table.numbers(), (92..100).collect::<Vec<_>>(), "the others would have ended first");
    assert_eq!((table.away(0), table.conntrack.connections().capacity()), (0, CT_WAYS as u32));
    let pass = table.conntrack.collect(|| false).expect("collectable");
    assert_eq!((pass.looked_at, pass.removed), (8, 0));
    assert_eq!(table.conntrack.occupancy(), Some((8, 1.0)));
}

#[test]
fn a_flood_of_unanswered_connections_puts_no_open_one_out() {
    let table = Table::new(16);
    let open: Vec<u32> = (0..60).collect();
    for number in &open {
        table.put(*number, OPEN, 1000);
    }
    assert!((0..16).all(|bucket| table.in_bucket(bucket).len() < CT_WAYS), "no bucket is full of open ones");
    for number in 1000..6000 {
        // They would last longer.
        table.put(number, NEW, 9000);
        assert!(table.conntrack.connections().lookup(&tuple(number)).expect("readable").is_some(), "{number}");
    }
    let kept = |open: &[u32]| {
        let numbers = table.numbers();
        open.iter().all(|number| numbers.binary_search(number).is_ok())
    };
    assert!(kept(&open), "open connections were lost: {:?}", table.numbers());
    assert_eq!(table.numbers().len(), 128, "the flood has the rest");
    // Nor does it keep others from being opened.
    let more: Vec<u32> = (100..110).collect();
    for number in &more {
        table.put(*number, OPEN, 1000);
    }
    assert!(kept(&open) && kept(&more), "{:?}", table.numbers());
}

/// With as many buckets for its entries as a node has: where none of a newcomer's own can be spared, a neighbour's is.
#[test]
fn a_flood_of_a_table_whose_entries_are_all_in_use_puts_no_open_one_out() {
    const ENTRIES: u32 = 2048;
    for open in [ENTRIES / 4, ENTRIES / 2, ENTRIES * 3 / 4] {
        let table = Table::with(CtMap::sizes(ENTRIES)[1].1, ENTRIES, &[]);
        (0..open).for_each(|number| table.put(number, OPEN, 1000));
        assert_eq!(table.numbers().len() as u32, open);
        (10_000..22_000).for_each(|number| table.put(number, NEW, 9000));
        let numbers = table.numbers();
        assert_eq!(numbers.iter().filter(|number| **number < open).count() as u32, open);
        assert_eq!(numbers.len() as u32, ENTRIES);
        table.check_order();
    }
}

/// A bucket of nothing but open connections loses one of them to a flood, whose next packet puts out its own.
#[test]
fn a_flood_puts_out_one_of_a_bucket_full_of_open_ones() {
    let full = Full::new(open(), &open());
    for number in of(&full.table, HOME, OTHER).skip(100).take(200) {
        full.table.put(number, NEW, 9000);
    }
    let left = full.table.numbers();
    let gone = full.home.iter().chain(&full.other).filter(|number| left.binary_search(number).is_err());
    assert_eq!(gone.collect::<Vec<_>>(), [&full.home[0]]);
}

#[test]
fn connections_away_from_home_are_found_collected_and_counted() {
    const ALIVE: i64 = 1000;
    const ENDED: i64 = -9;
    let table = Table::new(2);
    let all: Vec<u32> = of(&table, HOME, OTHER).take(CT_WAYS + 5).collect();
    for number in &all {
        table.put(*number, OPEN, ALIVE);
    }
    assert_eq!((table.in_bucket(HOME).len(), table.in_bucket(OTHER).len()), (CT_WAYS, 5));
    assert_eq!((table.away(HOME), table.away(OTHER)), (5, 0));
    let connections = table.conntrack.connections();
    for number in &all {
        for packet in [tuple(*number), tuple(*number).reverse()] {
            assert!(connections.lookup(&packet).expect("readable").is_some(), "{packet}");
        }
    }
    // Written again, each stays where it is, and is there once; also when its home has room by then.
    for number in &all[..2] {
        assert!(table.conntrack.remove(&tuple(*number)).expect("removable"));
    }
    for number in &all[2..] {
        table.put(*number, OPEN, ENDED);
    }
    assert_eq!((table.in_bucket(HOME), table.in_bucket(OTHER)), (all[2..8].to_vec(), all[8..].to_vec()));
    assert_eq!(table.away(HOME), 5);

    // One is removed by its key, the others are collected.
    assert!(table.conntrack.remove(&tuple(all[9])).expect("removable"));
    assert_eq!(table.away(HOME), 4);
    table.put(all[10], OPEN, ALIVE);
    let pass = table.conntrack.collect(|| false).expect("collectable");
    assert_eq!((pass.looked_at, pass.removed), (10, 9));
    assert_eq!((table.numbers(), table.away(HOME)), (vec![all[10]], 1));
    assert!(connections.lookup(&tuple(all[10])).expect("readable").is_some(), "home is empty, and it is away");
    assert_eq!(table.conntrack.flush(&CtFilter::all()).expect("removable"), 1);
    assert_eq!((table.away(HOME), table.away(OTHER)), (0, 0));
}

#[test]
fn whoever_is_put_out_while_away_is_no_longer_counted() {
    let table = Table::new(2);
    let mut of_home = of(&table, HOME, OTHER);
    let all: Vec<u32> = of_home.by_ref().take(CT_WAYS + 3).collect();
    for number in &all {
        table.put(*number, OPEN, 2000);
    }
    assert_eq!((table.in_bucket(OTHER), table.away(HOME)), (all[8..].to_vec(), 3));
    let own: Vec<u32> = of(&table, OTHER, HOME).take(CT_WAYS).collect();
    for (number, expected) in own.iter().zip([3, 3, 3, 3, 3, 2, 1, 0]) {
        table.put(*number, OPEN, 3000);
        assert_eq!(table.away(HOME), expected, "{number}");
    }
    assert_eq!((table.in_bucket(HOME), table.in_bucket(OTHER)), (all[..8].to_vec(), own));
    assert_eq!(table.away(OTHER), 0);
}
