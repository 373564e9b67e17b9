using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Formats.HuggingFace;
using Headroom.Formats.Peft;
using Headroom.Formats.Safetensors;
using Headroom.Tokenizers;

namespace Headroom.Tests.Formats;

/// <summary>
/// The JSON files beside a model with values that nobody expects, in every place: they are read, or refused with a
/// reason. Half of the cases swap a value for another kind of value, half damage the text. The cases are the same in
/// every run.
/// </summary>
public sealed class ConfigFuzzTests : IDisposable
{
    private const int Cases = 1000;

    private static readonly string[] Odd =
    [
        "null", "true", "false", "0", "-1", "-0.0", "1e400", "-1e400", "0.5", "2147483648", "9223372036854775808",
        "1e-320", "\"\"", "\"x\"", "\"\\u0000\"", "\"(\"", "\"auto\"", "[]", "[null]", "[[1], 2]", "[2, null]",
        "[\"a\", 3]", "{}", "{\"a\": null}", "{\"content\": 3}", "[{}]", "123456789012345678901234567890", "\"2\"",
        "[-1, 1e30]"];

    private readonly string _folder = Directory.CreateTempSubdirectory("headroom-").FullName;

    public void Dispose() => Directory.Delete(_folder, true);

    private const string Config = """
        {"architectures": ["LlamaForCausalLM"], "attention_bias": false, "bos_token_id": 1, "eos_token_id": [2, 3], "head_dim": 32, "hidden_act": "silu", "hidden_size": 192,
         "intermediate_size": 512, "max_position_embeddings": 512, "mlp_bias": false, "model_type": "llama", "num_attention_heads": 6, "num_hidden_layers": 4,
         "num_key_value_heads": 6, "pad_token_id": 0, "rms_norm_eps": 1e-05, "rope_theta": 10000, "sliding_window": null, "layer_types": null,
         "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
         "quantization_config": null, "tie_word_embeddings": true, "torch_dtype": "bfloat16", "vocab_size": 1024}
        """;

    private const string Adapter = """
        {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": false, "inference_mode": true,
         "init_lora_weights": true, "modules_to_save": ["norm"], "target_modules": ["q_proj", "v_proj"], "exclude_modules": null, "layers_to_transform": [0, 1], "layers_pattern": "layers",
         "rank_pattern": {"v_proj": 4}, "alpha_pattern": {"q_proj": 16}, "loftq_config": {"loftq_iter": 1}, "use_dora": false, "use_rslora": false, "ensure_weight_tying": false,
         "base_model_name_or_path": "org/base", "arrow_config": null, "qalora_group_size": 16, "lora_bias": false, "target_parameters": null, "trainable_token_indices": null}
        """;

    private const string Generation = """
        {"do_sample": true, "temperature": 0.6, "top_k": 50, "top_p": 0.9, "min_p": 0.1, "repetition_penalty": 1.1, "max_new_tokens": 20, "eos_token_id": [2, 3], "bos_token_id": 1}
        """;

    private const string Settings = """
        {"add_bos_token": true, "add_eos_token": false, "bos_token": {"content": "<s>", "special": true}, "eos_token": "</s>", "unk_token": null, "pad_token": "</s>",
         "added_tokens_decoder": {"3": {"content": "<x>", "special": true, "lstrip": false, "rstrip": false, "single_word": false, "normalized": false}},
         "additional_special_tokens": ["<x>", {"content": "<y>"}], "extra_special_tokens": {"image_token": "<i>"}, "chat_template": [{"name": "default", "template": "{{ messages }}"}],
         "tokenizer_class": "LlamaTokenizer", "model_max_length": 2048}
        """;

    private const string Vocabulary =
        """{"added_tokens": [{"id": 1, "content": "<s>", "special": true}], "model": {"type": "BPE", "vocab": {"a": 0, "<s>": 1, "</s>": 2}, "merges": []}}""";

    private const string Index =
        """{"metadata": {"total_size": 8}, "weight_map": {"only.weight": "one.safetensors", "b": "two.safetensors"}}""";

    [Fact]
    public void ModelConfigurations() => Run(1, Config, text =>
    {
        var c = HfConfig.Parse(text);
        c.InverseFrequencies(out _);
        _ = HfConfig.Parse(HfConfig.Write(c));
    });

    [Fact]
    public void GenerationConfigurations() => Run(2, Generation, text =>
    {
        File.WriteAllText(Path.Combine(_folder, "generation_config.json"), text);
        GenerationConfig.Beside(_folder);
    });

    [Fact]
    public void Adapters()
    {
        const string at = "base_model.model.model.layers.0.self_attn.q_proj.lora_";
        SafetensorsWriter.WriteF32(Path.Combine(_folder, "adapter_model.safetensors"),
            [
                (at + "A.weight", [4, 8], new float[32]), (at + "B.weight", [8, 4], new float[32]),
                ("base_model.model.model.norm.weight", [8], new float[8])]
        );
        Run(3, Adapter, text =>
        {
            File.WriteAllText(Path.Combine(_folder, "adapter_config.json"), text);
            PeftAdapter.Load(_folder);
        });
    }

    [Theory]
    [InlineData("tokenizer_config.json", 4)]
    [InlineData("special_tokens_map.json", 5)]
    [InlineData("config.json", 6)]
    public void TokenizerSettings(string name, uint stream)
    {
        File.WriteAllText(Path.Combine(_folder, "tokenizer.json"), Vocabulary);
        Run(stream, name == "config.json" ? Config : Settings, text =>
        {
            File.WriteAllText(Path.Combine(_folder, name), text);
            TokenizerLoader.Load(_folder).Encode("a", true);
        });
    }

    [Fact]
    public void Indexes()
    {
        File.WriteAllText(Path.Combine(_folder, "config.json"), Config);
        foreach (var (file, tensor) in new[] { ("one", "only.weight"), ("two", "b") })
            SafetensorsWriter.WriteF32(Path.Combine(_folder, file + ".safetensors"), [(tensor, [1], [1])]);
        Run(7, Index, text =>
        {
            File.WriteAllText(Path.Combine(_folder, "model.safetensors.index.json"), text);
            SafetensorsIndex.Load(_folder);
        });
    }

    private static void Run(uint stream, string sample, Action<string> read)
    {
        int good = 0;
        byte[] bytes = Encoding.UTF8.GetBytes(sample);
        for (int i = 0; i < Cases; i++)
        {
            var random = new PhiloxRandom((ulong)i, stream);
            string text =
                i % 2 == 0
                    ? Swapped(sample, random)
                    : Encoding.UTF8.GetString(Mutator.Mutate(bytes, bytes.Length, true, random));
            try
            {
                read(text);
                good++;
            }
            catch (HeadroomException e)
            {
                Assert.True(e.Message.Length > 0 && e.ToDo.Length > 0 && e.ExitCode == 2);
            }
            catch (Exception e)
            {
                Assert.Fail($"case {i}: {e.GetType().Name}: {e.Message}\n{e.StackTrace}\n{text}");
            }
        }
        Assert.InRange(good, Cases / 50, Cases - 1);
    }

    // One to three values, anywhere in the tree, are others.
    private static string Swapped(string sample, PhiloxRandom random)
    {
        var root = JsonNode.Parse(sample)!;
        for (int n = 1 + random.Next(3); n > 0; n--)
        {
            var places = new List<Action<JsonNode?>>();
            Collect(root, places);
            if (places.Count == 0) break;
            string odd = Odd[random.Next(Odd.Length)];
            places[random.Next(places.Count)](JsonNode.Parse(odd));
        }
        return root.ToJsonString(new JsonSerializerOptions { WriteIndented = true });
    }

    private static void Collect(JsonNode? node, List<Action<JsonNode?>> places)
    {
        if (node is JsonObject o)
            foreach (string key in o.Select(p => p.Key).ToList())
            {
                places.Add(v => o[key] = v);
                Collect(o[key], places);
            }
        else if (node is JsonArray a)
            for (int i = 0; i < a.Count; i++)
            {
                int at = i;
                places.Add(v => a[at] = v);
                Collect(a[at], places);
            }
    }
}
