# On Debian, Ubuntu or macOS with Rust, from a fresh clone: `make demo`, `make test`. Missing packages are installed, with a
# message.

.PHONY: demo test lint build bench bench-quick deny

demo:
	@sh tests/setup.sh server
	cargo run --release -- demo

# Tests mostly wait for servers: two per core at a time.
test:
	@sh tests/setup.sh server newest-server versions pgbouncer lints print-versions
	@$(MAKE) --no-print-directory lint
	RUST_TEST_THREADS=$$((2 * $$(getconf _NPROCESSORS_ONLN))) cargo test --features failpoints

lint:
	cargo fmt --check
	cargo clippy --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items

build:
	cargo build --release

# BENCH_ROWS sets the number of rows. Prints tables; writes JSON and a page with plots to target/bench.
bench:
	@sh tests/setup.sh server partman
	cargo bench --bench throughput

# The same with fewer rows and without the sweeps, in two minutes.
bench-quick:
	@sh tests/setup.sh server partman
	cargo bench --bench throughput -- --quick

# Not part of `test`: cargo-deny is not part of the Rust toolchain, and its advisory database is not available offline.
deny:
	cargo deny check licenses bans sources
