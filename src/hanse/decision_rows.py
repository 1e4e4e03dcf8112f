"""The rows of the decision table: what the field holds, and what was measured about it.

NIID-Bench is Li, Diao, Chen and He, "Federated learning on non-IID data silos: an experimental
study", ICDE 2022. The accuracies cited are those of its reproduction in Flower's baselines
(`niid_bench`): small CNNs, 10 clients, all in each round, 50 rounds of 10 epochs, local momentum
0.9.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Privacy = Literal["low", "high", "very high"]
Tolerance = Literal["low", "medium", "high"]


@dataclass(frozen=True)
class Row:
    """A strategy, when to take it, and how to run it.

    Attributes:
        name: as the field calls it.
        privacy: what is hidden of clients' updates; low: nothing but the data themselves.
        scale: the federation that it is commonly taken for.
        non_iid: how much clients' data may differ.
        best_for: what it is commonly taken for.
        page: its page in docs/strategies.
        settings: what `--set` changes in an experiment file to run it.
        remembers: what a client keeps from one of its rounds to the next.
        down: what is sent to a client, in models (what FedAvg sends); less where columns are local.
        up: what a client sends, likewise.
        partial_participation: whether a round may do without most clients.
        partial_work: what becomes of the work of a client that is stopped before its steps are
            done: biased, it counts for less than its weight; no, it cannot be used.
        source: who published it.
        note: what the other columns do not say, and where measurements disagree with them.
        also: where else it works, though it is not commonly said of it.
        released: this release can build it.
    """

    name: str
    privacy: Privacy
    scale: Literal["cross-silo", "cross-device", "either"]
    non_iid: Tolerance
    best_for: str
    page: str
    settings: tuple[str, ...]
    remembers: str
    down: str | None
    up: str | None
    partial_participation: str
    partial_work: str
    source: str
    note: str
    also: Literal["cross-silo", "cross-device"] | None = None
    released: bool = True


_REDDI = "Reddi et al., ICLR 2021"
_BESIDE = "where FedAvg has 72.8 % (CIFAR-10, 500 clients, Dirichlet 0.1; Reddi et al.)"
_OWN_CLIENTS = "yes, of clients that return"

ROWS = (
    Row(
        name="FedAvg",
        privacy="low",
        scale="cross-silo",
        also="cross-device",
        non_iid="low",
        best_for="Homogeneous data, fast prototyping",
        page="fedavg.md",
        settings=("strategy.name=fedavg",),
        remembers="nothing",
        down="1",
        up="1",
        partial_participation="yes",
        partial_work="biased",
        source="McMahan et al., AISTATS 2017",
        note="It was made for phones. On skewed labels it needs more rounds and settles beside the "
        "optimum, but it does not diverge for that alone, and others are not always better: with "
        "two labels a client NIID-Bench has it at 51.2 % on CIFAR-10 (SCAFFOLD 49.4 %, FedProx "
        "50.4 %, FedNova 46.9 %).",
    ),
    Row(
        name="FedProx",
        privacy="low",
        scale="cross-silo",
        also="cross-device",
        non_iid="medium",
        best_for="Heterogeneous clients, stragglers",
        page="fedprox.md",
        settings=("strategy.name=fedprox", "strategy.mu=0.1"),
        remembers="nothing",
        down="1",
        up="1",
        partial_participation="yes",
        partial_work="less biased",
        source="Li et al., MLSys 2020",
        note="“Medium” is for stragglers more than for skewed labels: NIID-Bench has it within "
        "3.2 points of FedAvg on CIFAR-10 in every split, far before it only on MNIST with one "
        "label a client (51.8 % to 19.3 %). A large mu keeps clients from learning.",
    ),
    Row(
        name="FedAvg + DP",
        privacy="high",
        scale="either",
        non_iid="low",
        best_for="Regulatory compliance",
        page="dp-fedavg.md",
        settings=("strategy.name=dp_fedavg",),
        remembers="nothing",
        down="1",
        up="1",
        partial_participation="yes",
        partial_work="no",
        source="McMahan et al., ICLR 2018",
        note="This release protects a client among thousands, not an example of a silo. A "
        "guarantee is a number (epsilon, delta), not a yes, and a run does not state it yet.",
    ),
    Row(
        name="FedSGD + SecAgg",
        privacy="very high",
        scale="cross-silo",
        also="cross-device",
        non_iid="low",
        best_for="Finance, healthcare",
        page="fedsgd-secagg.md",
        settings=("strategy.name=fedsgd_secagg",),
        remembers="nothing",
        down="1",
        up="1",
        partial_participation="yes",
        partial_work="no",
        source="Bonawitz et al., CCS 2017",
        note="It hides single updates from the server, but neither their sum nor what the model "
        "gives away: “very high” takes noise as well (strategy.privacy). Here it is simulated. "
        "FedSGD itself does not drift on skewed data; it is slow.",
    ),
    Row(
        name="Compressed FedAvg",
        privacy="low",
        scale="cross-device",
        also="cross-silo",
        non_iid="low",
        best_for="Mobile/IoT, bandwidth-constrained",
        page="compressed-fedavg.md",
        settings=("strategy.name=compressed_fedavg",),
        remembers="nothing",
        down="1",
        up="less than 1",
        partial_participation="yes",
        partial_work="biased",
        source="Konečný et al., 2016",
        note="A quarter of FedAvg's bytes go up by default (8 bits, right on average). With "
        "error_feedback = true clients remember what was left out, so that one coordinate in a "
        "hundred may do: for clients that return. The model goes down in full unless "
        "broadcast_bits says otherwise.",
    ),
    Row(
        name="SCAFFOLD",
        privacy="low",
        scale="cross-silo",
        non_iid="high",
        best_for="Highly non-IID data",
        page="scaffold.md",
        settings=("strategy.name=scaffold",),
        remembers="a control variate, as long as the model",
        down="2",
        up="2",
        partial_participation=_OWN_CLIENTS,
        partial_work="unbiased",
        source="Karimireddy et al., ICML 2020",
        note="“High” is not always: NIID-Bench has it 5.6 points before FedAvg at Dirichlet 0.5 on "
        "CIFAR-10, but at chance (10 %) with one label a client on all three data sets, and at "
        "33.8 ± 41.2 % (FedAvg 78.1 %) with two on Fashion-MNIST. That is with local momentum, "
        "which Hanse refuses beside option 2; with logistic regression its paper has it first at "
        "one label too (77 rounds to FedAvg's 258). Not cross-device: controls go stale where "
        "clients seldom return.",
    ),
    Row(
        name="FedSGD",
        privacy="low",
        scale="either",
        non_iid="high",
        best_for="A baseline without drift; convex models, cheap rounds",
        page="fedsgd.md",
        settings=('strategy={name = "fedsgd", lr = 0.1}',),
        remembers="nothing",
        down="1",
        up="1",
        partial_participation="yes",
        partial_work="no",
        source="McMahan et al., AISTATS 2017",
        note="It goes where the pooled data would, however they are split, and takes many rounds: "
        "483 where FedAvg took 173, for the CNN of McMahan et al. with two shards a client.",
    ),
    Row(
        name="FedAvg + SecAgg",
        privacy="very high",
        scale="either",
        non_iid="low",
        best_for="Devices whose owners do not trust the server",
        page="fedavg-secagg.md",
        settings=("strategy.name=fedavg_secagg",),
        remembers="nothing",
        down="1",
        up="1",
        partial_participation="yes",
        partial_work="biased",
        source="Bell et al., CCS 2020",
        note="As FedSGD + SecAgg. With noise (strategy.privacy) it is DP-FedAvg whose guarantee "
        "holds against the server; that takes hundreds of clients in a round.",
    ),
    Row(
        name="FedSGD, top-k",
        privacy="low",
        scale="cross-silo",
        non_iid="high",
        best_for="As FedSGD, over slow links between clients that return",
        page="fedsgd-topk.md",
        settings=('strategy={name = "fedsgd_topk", lr = 0.1}',),
        remembers="two vectors as long as the model",
        down="1",
        up="less than 1",
        partial_participation=_OWN_CLIENTS,
        partial_work="no",
        source="Lin et al., ICLR 2018",
        note="One coordinate in a hundred goes up, a few thousandths of the bytes with bits = 8. "
        "It needs as many rounds as FedSGD, and a model goes down in each.",
    ),
    Row(
        name="FedAvgM",
        privacy="low",
        scale="either",
        non_iid="medium",
        best_for="Few clients in each round, models that momentum suits",
        page="server-optimisers.md",
        settings=(
            "strategy.name=fedavg",
            "strategy.server.optimizer=sgd",
            "strategy.server.momentum=0.9",
            "strategy.server.lr=0.3",
        ),
        remembers="nothing",
        down="1",
        up="1",
        partial_participation="yes",
        partial_work="biased",
        source="Hsu et al., 2019",
        note=f"77.4 % {_BESIDE}. A steady direction is followed ten times as far, hence the rate.",
    ),
    Row(
        name="FedAdam",
        privacy="low",
        scale="either",
        non_iid="medium",
        best_for="Few clients in each round, sparse gradients",
        page="server-optimisers.md",
        settings=("strategy.name=fedavg", "strategy.server=adam"),
        remembers="nothing",
        down="1",
        up="1",
        partial_participation="yes",
        partial_work="biased",
        source=_REDDI,
        note=f"77.4 % {_BESIDE}. It has two more numbers to tune, lr and tau, which interact.",
    ),
    Row(
        name="FedYogi",
        privacy="low",
        scale="either",
        non_iid="medium",
        best_for="As FedAdam, with gradients whose size changes suddenly",
        page="server-optimisers.md",
        settings=("strategy.name=fedavg", "strategy.server=yogi"),
        remembers="nothing",
        down="1",
        up="1",
        partial_participation="yes",
        partial_work="biased",
        source=_REDDI,
        note=f"78.0 % {_BESIDE}, the best of five.",
    ),
    Row(
        name="FedAdagrad",
        privacy="low",
        scale="either",
        non_iid="low",
        best_for="Sparse gradients, such as those of embeddings",
        page="server-optimisers.md",
        settings=("strategy.name=fedavg", "strategy.server=adagrad"),
        remembers="nothing",
        down="1",
        up="1",
        partial_participation="yes",
        partial_work="biased",
        source=_REDDI,
        note=f"73.1 % {_BESIDE}: its steps only become shorter.",
    ),
    Row(
        name="FedProx, adaptive mu",
        privacy="low",
        scale="either",
        non_iid="medium",
        best_for="As FedProx, when nobody can try several values of mu",
        page="fedprox.md",
        settings=("strategy.name=fedprox", "strategy.mu=adaptive"),
        remembers="nothing",
        down="1",
        up="1",
        partial_participation="yes",
        partial_work="less biased",
        source="Li et al., MLSys 2020",
        note="The training loss of small cohorts jumps, and mu with it.",
    ),
    Row(
        name="FedNova",
        privacy="low",
        scale="either",
        non_iid="medium",
        best_for="Clients that take unequal numbers of steps",
        page="fednova.md",
        settings=("strategy.name=fednova",),
        remembers="nothing",
        down="1",
        up="1",
        partial_participation="yes",
        partial_work="unbiased",
        source="Wang et al., NeurIPS 2020",
        note="It mends unequal work, not skewed labels: 67.0 % where FedAvg has 62.4 % with "
        "clients of unequal sizes (CIFAR-10, Dirichlet 0.1; its set-up in Flower's baselines), but "
        "46.9 % where FedAvg has 51.2 % with two labels a client (NIID-Bench).",
    ),
    Row(
        name="FedDyn",
        privacy="low",
        scale="cross-silo",
        non_iid="high",
        best_for="Non-IID data at the traffic of FedAvg",
        page="feddyn.md",
        settings=("strategy.name=feddyn", "strategy.alpha=0.1"),
        remembers="a slope, as long as the model",
        down="1",
        up="1",
        partial_participation=_OWN_CLIENTS,
        partial_work="unbiased",
        source="Acar et al., ICLR 2021",
        note="It reaches the optimum of quadratics that FedAvg misses, as SCAFFOLD does. A small "
        "alpha makes the correction large: watch the norm of the updates.",
    ),
    Row(
        name="MimeLite",
        privacy="low",
        scale="cross-device",
        non_iid="medium",
        best_for="Non-IID data at clients that seldom return",
        page="mimelite.md",
        settings=("strategy.name=mimelite",),
        remembers="nothing",
        down="2",
        up="2",
        partial_participation="yes",
        partial_work="biased",
        source="Karimireddy et al., NeurIPS 2021",
        note="Clients read their data once more in each round, for a whole gradient. With beta2 "
        "(Adam) three models go down.",
    ),
    Row(
        name="FedBN",
        privacy="low",
        scale="cross-silo",
        non_iid="high",
        best_for="Clients whose inputs differ (scanners, sensors)",
        page="local-parameters.md",
        settings=("model.local=batch-norm",),
        remembers="its normalisation layers",
        down="less than 1",
        up="less than 1",
        partial_participation=_OWN_CLIENTS,
        partial_work="biased",
        source="Li et al., ICLR 2021",
        note="For shifted inputs, not for skewed labels. Who never trained has no layers of its "
        "own. The model must have BatchNorm.",
    ),
    Row(
        name="FedPer",
        privacy="low",
        scale="cross-silo",
        non_iid="high",
        best_for="Clients that each want a model of their own",
        page="local-parameters.md",
        settings=('model.local=["head.*"]',),
        remembers="its last layer",
        down="less than 1",
        up="less than 1",
        partial_participation=_OWN_CLIENTS,
        partial_work="biased",
        source="Arivazhagan et al., 2019",
        note="There is no single model at the end. Who never trained gets an untrained last layer. "
        "The globs are the names that your model gives what shall stay.",
    ),
    Row(
        name="Data sharing",
        privacy="low",
        scale="either",
        non_iid="high",
        best_for="Few labels a client, where some examples may be public",
        page="data-sharing.md",
        settings=("data.public=0.05",),
        remembers="nothing",
        down="1",
        up="1",
        partial_participation="yes",
        partial_work="biased",
        source="Zhao et al., 2018",
        note="About 30 points for 5 % of public data (CIFAR-10, one label a client; its paper). "
        "Sent once, before the first round. For mnist, fashion-mnist and idx; other data "
        "take hanse.data.share.",
    ),
    Row(
        name="DP-FTRL",
        privacy="high",
        scale="cross-device",
        also="cross-silo",
        non_iid="low",
        best_for="Differential privacy where cohorts cannot be drawn at random, or kept secret",
        page="dp-ftrl.md",
        settings=(
            "strategy.name=dp_ftrl",
            "strategy.rounds=100",
            "run.participation={kind = 'separated', separation = 2}",
        ),
        remembers="nothing",
        down="1",
        up="1",
        partial_participation="yes",
        partial_work="no",
        source="Kairouz et al., ICML 2021",
        note="The noise of a round is partly taken back in later ones. Set separation to as many "
        "groups as your clients make, and rounds to those that will be run: with one turn a client "
        "in 1024 rounds, the model has a seventh of the noise of independent rounds.",
    ),
    Row(
        name="LDP-FedAvg",
        privacy="very high",
        scale="cross-device",
        non_iid="low",
        best_for="A server that nobody trusts, and very many clients",
        page="ldp-fedavg.md",
        settings=("strategy.name=ldp_fedavg",),
        remembers="nothing",
        down="1",
        up="1",
        partial_participation="yes",
        partial_work="no",
        source="Kasiviswanathan et al., SICOMP 2011",
        note="Each client adds its own noise before it sends anything. For the same epsilon the "
        "mean of n clients has 2 sqrt(n) times the noise of a trusted server's.",
    ),
    Row(
        name="DP-SGD",
        privacy="high",
        scale="cross-silo",
        non_iid="low",
        best_for="A few silos, each with many records to protect",
        page="dp-sgd.md",
        settings=("strategy.name=dp_sgd",),
        remembers="nothing",
        down="1",
        up="1",
        partial_participation="yes",
        partial_work="biased",
        source="Abadi et al., CCS 2016",
        note="It protects an example, also from the server; not all that a person with many "
        "examples is. Noise is added in every step, so a client needs thousands of examples.",
    ),
)
