using System.Buffers.Binary;
using System.Net.Http.Headers;
using Headroom.Core;
using Headroom.Formats.HuggingFace;

namespace Headroom.Formats.Hub;

internal sealed partial class HubStore
{
    private const int FirstBytes = 1 << 17;     // the header of a shard of a 7B model takes about 30 KB
    private const int LongestHeader = 100_000_000; // the safetensors library's own limit

    /// <summary>
    /// What a plan needs of a model: config.json, the index, and the header of every shard, asked for by a ranged
    /// request. The folder looks like the model's, but the shards that are not in the cache are holes of the right
    /// length behind their headers: names, shapes and types can be read, weights are zeros. A 4-bit checkpoint, whose
    /// statistics are among the weights, is downloaded whole.
    /// </summary>
    /// <param name="name">org/name or org/name@revision.</param>
    /// <param name="folder">Made if need be; the caller deletes it.</param>
    /// <param name="stop">Stops.</param>
    /// <returns>The folder, or that of the whole model.</returns>
    /// <exception cref="HeadroomException">As <see cref="Model"/>.</exception>
    public string Outline(string name, string folder, CancellationToken stop = default)
    {
        if (HfConfig.Load(Config(name, stop).ConfigPath).Quantized != null) return Model(name, stop);
        return Run(async () =>
        {
            var repo = Open(HubKind.Model, name);
            Directory.CreateDirectory(folder);
            void Keep(string path, string file) => File.Copy(path, Path.Combine(folder, file), overwrite: true);
            Keep((await One(repo, "config.json", true, stop).ConfigureAwait(false))!, "config.json");
            string? index = await Index(repo, stop).ConfigureAwait(false);
            if (index != null) Keep(index, IndexFile);
            foreach (string shard in index == null ? [WholeFile] : Shards(index, repo.Name))
            {
                var (path, remote) = await repo.Find(shard, index != null, stop).ConfigureAwait(false);
                string to = Path.Combine(folder, shard);
                if (path != null) File.CreateSymbolicLink(to, Path.GetFullPath(path));
                else if (remote != null) Hole(to, await Header(repo, remote, stop).ConfigureAwait(false), remote.Size);
                else throw await NoWeights(repo, stop).ConfigureAwait(false);
            }
            return folder;
        }, stop);
    }

    private static void Hole(string path, byte[] header, long size)
    {
        using var file = File.Create(path);
        file.Write(header);
        file.SetLength(size); // takes no space on the disk
    }

    /// <summary>The first bytes of a safetensors file up to the end of its header.</summary>
    private async Task<byte[]> Header(HubRepository repo, HubFile file, CancellationToken stop)
    {
        byte[] bytes = await Front(repo, file, (int)Math.Min(FirstBytes, file.Size), stop).ConfigureAwait(false);
        ulong length = bytes.Length < 8 ? ulong.MaxValue : BinaryPrimitives.ReadUInt64LittleEndian(bytes);
        if (length > LongestHeader || (long)length > file.Size - 8)
            throw HubClient.Damaged(
                $"{file.File} is no safetensors file: its header does not fit it.",
                "Name another revision of the model.");
        int whole = 8 + (int)length;
        return bytes.Length >= whole ? bytes[..whole] : await Front(repo, file, whole, stop).ConfigureAwait(false);
    }

    private async Task<byte[]> Front(HubRepository repo, HubFile file, int count, CancellationToken stop)
    {
        try
        {
            return await _client.Retry(async () =>
            {
                // A server that ignores ranges sends everything; the rest is not read.
                using var response = await _client
                    .Get(file.Location, new RangeHeaderValue(0, count - 1), stop)
                    .ConfigureAwait(false);
                if (!response.IsSuccessStatusCode) throw HubException.From(response, repo.Name, file.Commit, file.File);
                var bytes = new byte[count];
                var body = await HubBody
                    .Open(response, _settings.DownloadTimeout, HubBody.MetadataRate, stop)
                    .ConfigureAwait(false);
                await using (body.ConfigureAwait(false)) await body.Fill(bytes).ConfigureAwait(false);
                return bytes;
            }, stop).ConfigureAwait(false);
        }
        catch (Exception e) when (HubClient.IsTransient(e) && e is not HubException)
        {
            throw _client.AsHub(e, $"the header of {file.File} of {repo.Name} is not complete");
        }
    }
}
