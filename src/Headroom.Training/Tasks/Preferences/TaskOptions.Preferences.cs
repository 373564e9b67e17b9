using System.Text.Json.Serialization;
using Headroom.Core;

namespace Headroom.Training.Recipes;

/// <summary>Keys of preferences (TRL's DPOConfig, KTOConfig, ORPOConfig).</summary>
public sealed partial class TaskOptions
{
    /// <summary>
    /// Loss of a pair: sigmoid (DPO), sigmoid_norm (of log probabilities a token), hinge, ipo (a token), orpo (no
    /// reference), or kto (of single answers, wanted or not).
    /// </summary>
    [Identity(Identity.Numbers)]
    [AlsoCalled("dpo_loss_type preference_loss rl pref_loss")]
    public PreferenceLossType LossType { get; set; }
    /// <summary>
    /// How strongly the model is held to the base; of ORPO the weight of the odds ratio (its lambda).
    /// </summary>
    [Identity(Identity.Numbers)]
    [Range(0, OpenLow = true)]
    [AlsoCalled("dpo_beta pref_beta kto_beta orpo_alpha")]
    public double Beta { get; set; } = 0.1;
    /// <summary>
    /// Share of pairs that are taken to be the wrong way round (conservative DPO); of sigmoid losses.
    /// </summary>
    [Identity(Identity.Numbers)]
    [Range(0, 0.5, OpenHigh = true)]
    [AlsoCalled("dpo_label_smoothing")]
    public double LabelSmoothing { get; set; }
    /// <summary>
    /// Weight of the mean loss of the chosen answer's tokens beside that of the pair (RPO); 0 = none.
    /// </summary>
    [Identity(Identity.Numbers)]
    [Range(0)]
    [AlsoCalled("pref_ftx sft_weight")]
    public double RpoAlpha { get; set; }
    /// <summary>kto: weight of answers that are wanted.</summary>
    [Identity(Identity.Numbers)]
    [Range(0)]
    [AlsoCalled("kto_desirable_weight kto_chosen_weight")]
    public double DesirableWeight { get; set; } = 1;
    /// <summary>kto: weight of answers that are not wanted.</summary>
    [Identity(Identity.Numbers)]
    [Range(0)]
    [AlsoCalled("kto_undesirable_weight kto_rejected_weight")]
    public double UndesirableWeight { get; set; } = 1;
}

/// <summary>Losses of preferences.</summary>
[JsonConverter(typeof(SnakeCaseEnum<PreferenceLossType>))]
public enum PreferenceLossType : byte
{
    /// <summary>DPO (arXiv 2305.18290).</summary>
    Sigmoid,
    /// <summary>The same over mean log probabilities of a token.</summary>
    SigmoidNorm,
    /// <summary>SLiC's hinge (arXiv 2305.10425) on DPO's margin.</summary>
    Hinge,
    /// <summary>IPO (arXiv 2310.12036), over mean log probabilities of a token as TRL has it.</summary>
    Ipo,
    /// <summary>ORPO (arXiv 2403.07691).</summary>
    Orpo,
    /// <summary>KTO (arXiv 2402.01306).</summary>
    Kto,
}
