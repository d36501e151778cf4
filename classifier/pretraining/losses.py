"""Losses of self-supervised learning, of two views of each image."""

import torch
import torch.nn.functional as F
from torch import Tensor


def nt_xent(first_ND: Tensor, second_ND: Tensor, temperature: float) -> Tensor:
    """The loss of SimCLR: of all other views in the batch, find the one of the same image, by cosine similarity.

    T. Chen et al., "A simple framework for contrastive learning of visual representations", 2020. Returns a scalar.
    """
    views_MD = F.normalize(torch.cat([first_ND, second_ND]).float(), dim=1)
    similarity_MM = views_MD @ views_MD.T / temperature
    similarity_MM = similarity_MM.masked_fill(torch.eye(len(views_MD), dtype=torch.bool, device=views_MD.device), -1e9)
    partner_M = torch.arange(len(views_MD), device=views_MD.device).roll(len(first_ND))
    return F.cross_entropy(similarity_MM, partner_M)


def regress_views(predicted_ND: Tensor, target_ND: Tensor) -> Tensor:
    """The loss of BYOL: squared distance of unit vectors, 2 - 2 cos. No gradient reaches the target.

    J.-B. Grill et al., "Bootstrap your own latent", 2020. Returns a scalar.
    """
    return 2 - 2 * F.cosine_similarity(predicted_ND.float(), target_ND.detach().float()).mean()


def match_prototypes(
    student_NP: Tensor, teacher_NP: Tensor, centre_P: Tensor, student_temperature: float, teacher_temperature: float
) -> Tensor:
    """The loss of DINO: cross-entropy of the student's shares of P prototypes with the teacher's, which are
    centred and sharpened.

    M. Caron et al., "Emerging properties in self-supervised vision transformers", 2021. Returns a scalar.
    """
    targets_NP = ((teacher_NP.detach().float() - centre_P) / teacher_temperature).softmax(1)
    return F.cross_entropy(student_NP.float() / student_temperature, targets_NP)
