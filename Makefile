# The two commands of the README, and what a contributor needs. Everything here is plain `go`.

.PHONY: build quickstart test race lint generate clean

build:
	CGO_ENABLED=0 go build -o meap ./cmd/meap

# Trains a small model on the Go distribution's own source code, then evaluates it: perplexity beside a bigram model, and the
# needle test.
quickstart:
	go run ./cmd/meap pretrain --config configs/quickstart.yaml --output runs/quickstart
	go run ./cmd/meap eval perplexity --model runs/quickstart
	go run ./cmd/meap eval needle --model runs/quickstart

test:
	go test ./...

race:
	go test -race -short ./...

lint:
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "run gofmt -w on these files"; exit 1; }
	go vet ./...
	go run honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK) ./...

STATICCHECK = v0.8.2

generate:
	go generate ./...

clean:
	rm -rf meap runs
