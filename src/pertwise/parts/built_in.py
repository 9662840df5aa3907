"""The one table of what pertwise brings: kind -> slug -> "module:attribute". Data only.

A new built-in part is a file and one line here; what it needs and reads stands on the class or
function itself (`pertwise.parts.part`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_MODELS = "pertwise.models."
_STRATEGIES = "pertwise.acquire.strategies."
_EVALUATE = "pertwise.evaluate."
_READERS = "pertwise.knowledge.build.readers."
_LAYOUTS = "pertwise.screen.layouts:LAYOUTS."
_SELECT = "pertwise.select."

BUILT_IN: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "predictor": {
            "control": _MODELS + "baselines:ControlPredictor",
            "training-mean": _MODELS + "baselines:TrainingMeanPredictor",
            "graph-neighbours": _MODELS + "recipes:graph_neighbours",
            "rewired-graph-neighbours": _MODELS + "recipes:rewired_graph_neighbours",
            "neighbours": _MODELS + "neighbour_recipes:neighbours",
            "embedding-neighbours": _MODELS + "recipes:embedding_neighbours",
            "ridge-on-embedding": _MODELS + "linear:RidgePredictor",
            "bilinear": _MODELS + "linear:BilinearPredictor",
            "gp-text": _MODELS + "recipes:gp_text",
            "kernel-ridge": _MODELS + "recipes:kernel_ridge",
            "llmpert": _MODELS + "llmpert.predictor:LLMPertEnsemble",
            "marks": _MODELS + "recipes:marks",
            "multi-kernel": _MODELS + "recipes:multi_kernel",
            "learned-neighbours": _MODELS + "learned:LearnedNeighbourPredictor",
            "additive": _MODELS + "combinations:additive",
            "kernel-vote": _MODELS + "vote:KernelVotePredictor",
            "radial": _MODELS + "radial:RadialPredictor",
            "forest": _MODELS + "forest:ForestPredictor",
            "stacked": _MODELS + "recipes:stacked",
            "langpert": _MODELS + "chat_recipes:langpert",
            "graph-edit": _MODELS + "chat_recipes:graph_edit",
            "langpert-recorded": _MODELS + "recipes:recorded_langpert",
            "cross-line-transfer": _MODELS + "recipes:transfer",
            "fused": _MODELS + "recipes:fused",
            "chat-kernel": _MODELS + "recipes:chat_kernel",
            "context-mean": _MODELS + "context_means:ContextMean",
            "context-mean-shrunk": _MODELS + "context_means:shrunk_context_mean",
            "perturbation-mean": _MODELS + "context_means:PerturbationMean",
            "additive-contexts": _MODELS + "context_means:AdditiveContexts",
            "pca-ridge": _MODELS + "feature_ridge:FeatureRidge",
            "chemistry-knn": _MODELS + "compound_recipes:chemistry_knn",
            "mechanism-knn": _MODELS + "compound_recipes:mechanism_knn",
            "target-knn": _MODELS + "compound_recipes:target_knn",
            "combined-knn": _MODELS + "compound_recipes:combined_knn",
            "lgr": _MODELS + "compound_recipes:lgr",
            "lgr-shrunk": _MODELS + "compound_recipes:lgr_shrunk",
            "hybrid": _MODELS + "compound_recipes:hybrid",
            "external": _MODELS + "external:ExternalPredictor",
            "dose": _MODELS + "dose:DosePredictor",
        },
        "strategy": {
            "random": _STRATEGIES + "random:Random",
            "uncertainty": _STRATEGIES + "uncertainty:Uncertainty",
            "bald": _STRATEGIES + "bald:Bald",
            "batchbald": _STRATEGIES + "batchbald:BatchBald",
            "iterpert": _STRATEGIES + "iterpert:IterPert",
            "iterpert-fused": _STRATEGIES + "iterpert:FusedIterPert",
            "coreset": _STRATEGIES + "coreset:CoreSet",
            "typiclust": _STRATEGIES + "typiclust:TypiClust",
            "badge": _STRATEGIES + "badge:Badge",
            "bait": _STRATEGIES + "bait:Bait",
            "acs-fw": _STRATEGIES + "acs_fw:AcsFw",
            "lcmd": _STRATEGIES + "lcmd:Lcmd",
            "variance-reduction": _STRATEGIES + "variance_reduction:VarianceReduction",
            "adaptive": _STRATEGIES + "adaptive:Adaptive",
            "knowledge": _STRATEGIES + "knowledge:KnowledgePicker",
            "llm": _STRATEGIES + "llm:LlmStrategy",
        },
        "kernel": {
            "features": "pertwise.kernels.folder:features",
            "emb": "pertwise.kernels.folder:emb",
            "diffusion": "pertwise.kernels.folder:diffusion",
            "symbol": "pertwise.kernels.folder:symbol",
            "chemistry": "pertwise.kernels.compounds:chemistry",
            "mechanism": "pertwise.kernels.compounds:mechanism",
            "target": "pertwise.kernels.compounds:target",
            "target-graph": "pertwise.kernels.compounds:target_graph",
            "pathway": "pertwise.kernels.compounds:pathway",
        },
        "metric": {
            "squared-error": _EVALUATE + "metrics:squared_error",
            "mse": _EVALUATE + "metrics:mse",
            "mae": _EVALUATE + "metrics:mae",
            "pearson-delta": _EVALUATE + "metrics:pearson_delta",
            "pearson-reference": _EVALUATE + "metrics:pearson_reference",
            "cosine": _EVALUATE + "metrics:cosine",
            "direction-accuracy": _EVALUATE + "metrics:direction_accuracy",
            "slope": _EVALUATE + "metrics:regression_slope",
            "r2": _EVALUATE + "metrics:r_squared",
            "retrieval": _EVALUATE + "retrieval:retrieval",
            "retrieval-heldout": _EVALUATE + "retrieval:retrieval_heldout",
            "retrieval-reverse": _EVALUATE + "retrieval:retrieval_reverse",
            "de-auprc": _EVALUATE + "auroc:de_auprc",
            "de-auroc": _EVALUATE + "auroc:de_auroc",
            "de-overlap": _EVALUATE + "genes:de_overlap",
            "energy-distance": _EVALUATE + "distribution:energy_distance",
        },
        "split": {
            "folds": _EVALUATE + "splits:split_folds",
            "growing": _EVALUATE + "splits:split_growing",
            "doubles": _EVALUATE + "splits:split_doubles",
            "transfer": _EVALUATE + "splits:split_transfer",
            "given": _EVALUATE + "given:split_given",
        },
        "source": {
            "hgnc": _READERS + "genes:read_hgnc",
            "mgi": _READERS + "genes:read_mgi",
            "alias": _READERS + "genes:read_alias",
            "gene-info": _READERS + "genes:read_gene_info",
            "gene-summary": _READERS + "genes:read_gene_summary",
            "gene-text": _READERS + "genes:read_gene_text",
            "gaf": _READERS + "terms:read_gaf",
            "gene-go": _READERS + "terms:read_gene_go",
            "obo": _READERS + "terms:read_obo",
            "go-table": _READERS + "terms:read_go_table",
            "gmt": _READERS + "terms:read_gmt",
            "string-info": _READERS + "genes:read_string_info",
            "string-aliases": _READERS + "genes:read_string_aliases",
            "string-links": _READERS + "networks:read_string_links",
            "string": _READERS + "networks:read_string",
            "string-ge800": _READERS + "networks:read_string_ge800",
            "omnipath": _READERS + "networks:omnipath",
            "regulation": _READERS + "networks:regulation",
            "collectri": _READERS + "networks:collectri",
            "dorothea": _READERS + "networks:dorothea",
            "positions": _READERS + "terms:read_positions",
            "gtf": _READERS + "terms:read_gtf",
            "graph": _READERS + "networks:read_graph",
        },
        "layout": {
            "pertwise": _LAYOUTS + "pertwise",
            "gears": _LAYOUTS + "gears",
            "scperturb": _LAYOUTS + "scperturb",
            "replogle": _LAYOUTS + "replogle",
            "replogle-bulk": _LAYOUTS + "replogle_bulk",
            "tahoe": _LAYOUTS + "tahoe",
            "drug": _LAYOUTS + "drug",
            "target-gene": _LAYOUTS + "target_gene",
            "named": _LAYOUTS + "named",
        },
        # Settings belong to the first task that has the mark (`Task.mark`) in them.
        "task": {
            "acquisition": "pertwise.benchmark.acquisition.run:AcquisitionTask",
            "judges": "pertwise.benchmark.acquisition.judged:JudgeTask",
            "drugs": "pertwise.benchmark.prediction.regimes:RegimesTask",
            "perturbqa": "pertwise.benchmark.perturbqa:PerturbqaTask",
            "prefilter": "pertwise.benchmark.prefilter:PrefilterTask",
            "prediction": "pertwise.benchmark.prediction.run:PredictionTask",
        },
        "selector": {
            "graph": _SELECT + "recipes:graph",
            "embedding": _SELECT + "recipes:embedding",
            "kernel": _SELECT + "recipes:kernel",
            "recorded": _SELECT + "recipes:recorded",
            "learned": _SELECT + "recipes:learned",
            "langpert": _SELECT + "chat.recipes:langpert",
            "lgr": _SELECT + "chat.recipes:lgr",
            "edit": _SELECT + "chat.recipes:edit",
            "edit-policy": "pertwise.train.policy:edit_policy",
            "oracle": _SELECT + "oracle:OracleSelector",
        },
    }
)
#: Names that parts had in tables and configurations before, which still find them.
FORMER: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "predictor": {
            "cell-mean": "context-mean",
            "cell-mean-shrunk": "context-mean-shrunk",
            "drug-mean": "perturbation-mean",
            "drug-cell": "additive-contexts",
        }
    }
)
