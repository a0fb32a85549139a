"""Every model, in files that later versions have to load."""

from files.own import Case, deep, few, integral, squares, tiny

import flows

# Every model as users make it, but with small networks. Depths are about those at which the first version makes a loop of a
# stack: beyond 4 layers of affine models, beyond 10 of the others. Params of a loop are stacked, so what a depth meant when a
# file was written is part of the file.


def affine_models() -> dict[str, Case]:
    """NICE, RealNVP, Glow, MAF and IAF: in a loop beyond 4 layers."""
    cases = {"nice": Case(flows.Flow(flows.NICE(**few), flows.Logistic()))}
    for name, model in {"realnvp": flows.RealNVP, "glow": flows.Glow, "maf": flows.MAF, "iaf": flows.IAF}.items():
        cases[name] = Case(flows.Flow(model(4, **few)))
        cases[f"{name}_conditional"] = Case(flows.Flow(model(3, **few)), context=2)
    for name, model in {"nice": flows.NICE, "realnvp": flows.RealNVP, "glow": flows.Glow, "maf": flows.MAF}.items():
        cases[f"{name}_plain"] = Case(flows.Flow(model(2, hidden=(8, 4), activation="tanh", plain=True)))
    cases["iaf_plain"] = Case(flows.Flow(flows.IAF(2, plain=True, **few)))
    # 5 and 7 leave an odd layer after the loop of models whose halves take turns.
    cases["nice_5"] = Case(flows.Flow(flows.NICE(5, **deep)))
    cases["realnvp_6"] = Case(flows.Flow(flows.RealNVP(6, **deep)))
    cases["realnvp_7"] = Case(flows.Flow(flows.RealNVP(7, plain=True, **deep)))
    cases["realnvp_8_conditional"] = Case(flows.Flow(flows.RealNVP(**deep)), context=2)
    cases["glow_8"] = Case(flows.Flow(flows.Glow(**deep)))
    cases["maf_5"] = Case(flows.Flow(flows.MAF(**deep)))
    cases["maf_6_plain"] = Case(flows.Flow(flows.MAF(6, plain=True, **deep)), event=2)
    cases["maf_5_conditional"] = Case(flows.Flow(flows.MAF(**deep)), context=2)
    cases["iaf_5"] = Case(flows.Flow(flows.IAF(**deep)))
    # Said, whatever the depth; a loop over pairs of which there are none is no loop.
    cases["nice_loop"] = Case(flows.Flow(flows.NICE(2, scan=True, **few)))
    cases["nice_unrolled"] = Case(flows.Flow(flows.NICE(6, scan=False, **deep)))
    cases["realnvp_1_loop"] = Case(flows.Flow(flows.RealNVP(1, scan=True, **few)))
    cases["realnvp_3_loop"] = Case(flows.Flow(flows.RealNVP(3, scan=True, **few)))
    cases["realnvp_5_unrolled"] = Case(flows.Flow(flows.RealNVP(5, scan=False, **deep)))
    cases["glow_2_loop"] = Case(flows.Flow(flows.Glow(2, scan=True, **few)))
    cases["glow_5_unrolled"] = Case(flows.Flow(flows.Glow(5, scan=False, **deep)))
    cases["maf_1_loop"] = Case(flows.Flow(flows.MAF(1, scan=True, **few)))
    cases["maf_6_unrolled"] = Case(flows.Flow(flows.MAF(6, scan=False, **deep)))
    cases["iaf_2_loop"] = Case(flows.Flow(flows.IAF(2, scan=True, **few)))
    return cases


def spline_models() -> dict[str, Case]:
    """NSF: in a loop beyond 10 layers; each spline in each kind of network."""
    cases = {}
    for spline in ("rational_quadratic", "quadratic", "cubic", "linear", "linear_rational"):
        cases[f"nsf_{spline}"] = Case(flows.Flow(flows.NSF(1, spline=spline, **tiny)))
    cases["nsf_autoregressive"] = Case(flows.Flow(flows.NSF(1, autoregressive=True, hidden=(8, 8), num_bins=3)))
    cases["nsf_linear_autoregressive"] = Case(flows.Flow(flows.NSF(1, spline="linear", autoregressive=True, **tiny)))
    cases["nsf_5"] = Case(flows.Flow(flows.NSF(**tiny)), event=2)
    cases["nsf_5_autoregressive"] = Case(flows.Flow(flows.NSF(autoregressive=True, spline="linear", **tiny)), event=2)
    cases["nsf_conditional"] = Case(flows.Flow(flows.NSF(1, dropout=0.1, **tiny)), context=2)
    cases["nsf_autoregressive_conditional"] = Case(
        flows.Flow(flows.NSF(1, autoregressive=True, spline="cubic", **tiny)), context=2
    )
    cases["nsf_plain"] = Case(flows.Flow(flows.NSF(2, plain=True, hidden=(8, 4), num_bins=3, bound=4.0)))
    cases["nsf_plain_autoregressive"] = Case(
        flows.Flow(flows.NSF(2, plain=True, autoregressive=True, spline="quadratic", **tiny))
    )
    cases["nsf_7"] = Case(flows.Flow(flows.NSF(7, **tiny)))
    cases["nsf_10_plain"] = Case(flows.Flow(flows.NSF(10, plain=True, spline="linear", **tiny)), event=2)
    cases["nsf_11"] = Case(flows.Flow(flows.NSF(11, **tiny)))
    cases["nsf_12_plain"] = Case(flows.Flow(flows.NSF(12, plain=True, **tiny)))
    cases["nsf_12_autoregressive"] = Case(flows.Flow(flows.NSF(12, autoregressive=True, spline="linear_rational", **tiny)))
    cases["nsf_2_loop"] = Case(flows.Flow(flows.NSF(2, scan=True, **tiny)), context=2)
    cases["nsf_11_unrolled"] = Case(flows.Flow(flows.NSF(11, scan=False, plain=True, spline="linear", **tiny)), event=2)
    return cases


def of_one() -> list:
    """Models of one feature: where nothing is seen, networks give way to constants."""
    splines = [flows.NSF(1, **tiny), flows.NSF(1, autoregressive=True, plain=True, **tiny)]
    return [flows.RealNVP(2, **few), flows.Glow(1, **few), flows.MAF(2, **few), flows.IAF(1, **few), *splines]


def monotone_models() -> dict[str, Case]:
    """NAF, BNAF, UMNN, SOS and GaussianizationFlow, in a loop beyond 10 layers; and MixtureMADE."""
    return {
        "naf": Case(flows.Flow(flows.NAF(num_units=2, **deep))),
        "naf_11": Case(flows.Flow(flows.NAF(11, num_units=2, **deep))),
        "naf_conditional": Case(flows.Flow(flows.NAF(2, num_units=3, **few)), context=2),
        "bnaf": Case(flows.Flow(flows.BNAF(hidden=(3,)))),
        "bnaf_12": Case(flows.Flow(flows.BNAF(12, hidden=(2,)))),
        "bnaf_conditional": Case(flows.Flow(flows.BNAF(2, hidden=(3, 2))), context=2),
        "umnn": Case(flows.Flow(flows.UMNN(**deep, **integral)), event=2),
        "umnn_11": Case(flows.Flow(flows.UMNN(11, **deep, **integral))),
        "umnn_conditional": Case(flows.Flow(flows.UMNN(1, **few, **integral)), context=2),
        "sos": Case(flows.Flow(flows.SOS(**deep, **squares)), event=2, stir=0.1, spread=0.5),
        "sos_11": Case(flows.Flow(flows.SOS(11, **deep, **squares)), event=2, stir=0.1, spread=0.3),
        "sos_conditional": Case(flows.Flow(flows.SOS(2, **few)), context=2, stir=0.05, spread=0.5),
        "gaussianization": Case(flows.Flow(flows.GaussianizationFlow(num_components=3))),
        "gaussianization_11": Case(flows.Flow(flows.GaussianizationFlow(11, num_components=2, num_reflections=2))),
        "models_of_one_feature": Case(flows.Flow(flows.Serial(*of_one())), event=1),
        "mixture_made": Case(flows.MixtureMADE(3, **few)),
        "mixture_made_conditional": Case(flows.MixtureMADE(2, **few), context=2),
        "mixture_made_of_one_feature": Case(flows.MixtureMADE(3, **few), event=1),
        "maf_mixture_made": Case(flows.Flow(flows.MAF(2, **few), flows.MixtureMADE(3, **few))),
        "maf_mixture_made_conditional": Case(flows.Flow(flows.MAF(1, **few), flows.MixtureMADE(2, **few)), context=2),
    }


MODELS = {**affine_models(), **spline_models(), **monotone_models()}
