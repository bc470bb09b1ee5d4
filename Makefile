# The few commands of the house. Each does its own set-up (scripts/setup.sh) and writes nothing outside this folder.
.PHONY: help build check test soak bench demo

help:
	@echo 'make demo    from nothing to a critical ticket, on this machine, with the release binaries'
	@echo 'make test    everything that is tested, on both databases'
	@echo 'make check   format, lints, docs, dependency policy'
	@echo 'make soak    the long proofs, whole: crashes, power cuts, bad disks (scripts/soak.sh --help tells how long each part takes)'
	@echo 'make bench   what it costs: reports, growth and long polls at the collector, the agent on an appliance, beside their peers'
	@echo 'make build   the release binaries: the agent small and static, the collector fast'

build:
	@scripts/build.sh

check:
	@scripts/check.sh

test:
	@scripts/test.sh

soak:
	@scripts/soak.sh $(PART)

bench:
	@scripts/bench.sh $(PART)

demo:
	@scripts/demo.sh
