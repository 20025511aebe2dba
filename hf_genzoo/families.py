"""The zoo as one plain table. Data only: nothing here imports torch, so `genzoo list` answers at once."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """One generative-model family.

    Args:
        name: Short name; also the stem of its script, pipeline, card and test files.
        title: What a person calls it.
        paper: Authors and title of the defining paper.
        year: Year of that paper.
        url: Where the paper can be read.
        modality: What it generates: "image" or "points2d" (comma separated when it does several).
        pipeline: Class in `hf_genzoo.pipelines.<name>`.
        parent: Family whose networks and pipeline it shares, if it has none of its own.
        own_pipeline: It shares the parent's networks, but has a pipeline of its own.
        stages: Names of its training stages, in order; empty for a single training.
        takes: What its call must be given to draw a sample: "image", or None where noise is enough.
        more_pipelines: Further classes of that module that a stage exports.
    """

    name: str
    title: str
    paper: str
    year: int
    url: str
    modality: str
    pipeline: str
    parent: str | None = None
    own_pipeline: bool = False
    stages: tuple[str, ...] = ()
    takes: str | None = None
    more_pipelines: tuple[str, ...] = ()

    @property
    def script(self) -> str:
        """Module that trains it."""
        return f"hf_genzoo.training_scripts.train_{self.name}"

    @property
    def pipeline_module(self) -> str:
        """Module that holds its pipeline (the parent's, when it has none of its own)."""
        home = self.name if self.own_pipeline or self.parent is None else self.parent
        return f"hf_genzoo.pipelines.{home}"


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            name="ddpm",
            title="Denoising diffusion probabilistic model",
            paper="Ho, Jain & Abbeel: Denoising Diffusion Probabilistic Models",
            year=2020,
            url="https://arxiv.org/abs/2006.11239",
            modality="image",
            pipeline="DenoisingDiffusionPipeline",
        ),
        Family(
            name="ddim",
            title="Denoising diffusion implicit model",
            paper="Song, Meng & Ermon: Denoising Diffusion Implicit Models",
            year=2021,
            url="https://arxiv.org/abs/2010.02502",
            modality="image",
            pipeline="ImplicitDiffusionPipeline",
            parent="ddpm",
            own_pipeline=True,
        ),
        Family(
            name="iddpm",
            title="Improved denoising diffusion",
            paper="Nichol & Dhariwal: Improved Denoising Diffusion Probabilistic Models",
            year=2021,
            url="https://arxiv.org/abs/2102.09672",
            modality="image",
            pipeline="DenoisingDiffusionPipeline",
            parent="ddpm",
        ),
        Family(
            name="vae",
            title="Variational autoencoder",
            paper="Kingma & Welling: Auto-Encoding Variational Bayes",
            year=2014,
            url="https://arxiv.org/abs/1312.6114",
            modality="image",
            pipeline="VAEPipeline",
        ),
        Family(
            name="autoencoder",
            title="Autoencoder",
            paper="Hinton & Salakhutdinov: Reducing the Dimensionality of Data with Neural Networks",
            year=2006,
            url="https://www.cs.toronto.edu/~hinton/science.pdf",
            modality="image",
            pipeline="AutoencoderPipeline",
        ),
        Family(
            name="beta_vae",
            title="beta-VAE",
            paper="Higgins et al.: beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework",
            year=2017,
            url="https://openreview.net/forum?id=Sy2fzU9gl",
            modality="image",
            pipeline="VAEPipeline",
            parent="vae",
        ),
        Family(
            name="wgan_gp",
            title="Wasserstein GAN with gradient penalty",
            paper="Gulrajani et al.: Improved Training of Wasserstein GANs",
            year=2017,
            url="https://arxiv.org/abs/1704.00028",
            modality="image,points2d",
            pipeline="WGANPipeline",
            parent="gan",
        ),
        Family(
            name="gan",
            title="Generative adversarial network",
            paper="Goodfellow et al.: Generative Adversarial Networks",
            year=2014,
            url="https://arxiv.org/abs/1406.2661",
            modality="image,points2d",
            pipeline="GANPipeline",
        ),
        Family(
            name="cgan",
            title="Conditional generative adversarial network",
            paper="Mirza & Osindero: Conditional Generative Adversarial Nets",
            year=2014,
            url="https://arxiv.org/abs/1411.1784",
            modality="image,points2d",
            pipeline="GANPipeline",
            parent="gan",
        ),
        Family(
            name="score_sde",
            title="Score-based model in continuous time",
            paper="Song et al.: Score-Based Generative Modeling through Stochastic Differential Equations",
            year=2021,
            url="https://arxiv.org/abs/2011.13456",
            modality="image,points2d",
            pipeline="ScoreSdePipeline",
            stages=("score", "classifier"),
        ),
        Family(
            name="sr3",
            title="Super-resolution by iterative refinement",
            paper="Saharia et al.: Image Super-Resolution via Iterative Refinement",
            year=2021,
            url="https://arxiv.org/abs/2104.07636",
            modality="image",
            pipeline="SR3Pipeline",
            takes="image",
        ),
        Family(
            name="glide",
            title="Text-guided diffusion",
            paper="Nichol et al.: GLIDE: Towards Photorealistic Image Generation and Editing with Text-Guided "
            "Diffusion Models",
            year=2021,
            url="https://arxiv.org/abs/2112.10741",
            modality="image",
            pipeline="GlidePipeline",
            stages=("base", "inpaint"),
            more_pipelines=("GlideInpaintPipeline",),
        ),
    )
}


def get_family(name: str) -> Family:
    """Look a family up by name; an unknown name is an error that lists the known ones."""
    if name not in FAMILIES:
        raise ValueError(f"unknown family {name!r}; known families: {', '.join(sorted(FAMILIES))}")
    return FAMILIES[name]
