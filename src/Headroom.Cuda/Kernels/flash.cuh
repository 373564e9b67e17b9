// What the flash attention kernels of flash.cu share: shared tiles and their copies, operands from them, the block's place.
#define TILE FLASH_TILE
#define THREADS FLASH_THREADS
#define QUERIES FLASH_QUERIES
#define CHUNKS (HEAD / 8)
#define DS (HEAD / 16)
#define DT (HEAD / 8)
#define LOG2E 1.4426950408889634f

// Shared tiles hold rows of HEAD elements in 16-byte chunks, swizzled so that eight rows of one chunk lie in eight bank groups.
DEV u32 place(u32 base, int row, int chunk) { return base + (row * CHUNKS + (chunk ^ (row & 7))) * 16; }

template <int ROWS> DEV void load_tile(u32 to, const T* from, i64 stride, int valid)
{
#pragma unroll
    for (int i = 0; i < ROWS * CHUNKS / THREADS; i++)
    {
        int n = i * THREADS + threadIdx.x, row = n / CHUNKS, chunk = n % CHUNKS;
        bool in = row < valid;
        copy_async(place(to, row, chunk), from + (in ? row * stride : 0) + chunk * 8, in);
    }
}

// B operand of two 8-column tiles from rows [row, row + 16), elements of chunk pair s: columns are rows of the tile.
DEV void rows_operand(u32* r, u32 tile, int row, int s, int lane) { ldmatrix(r, place(tile, row + ((lane >> 4) << 3) + (lane & 7), s * 2 + ((lane >> 3) & 1))); }
// B operand of two 8-column tiles (chunks d, d + 1), the sum running over rows [row, row + 16).
DEV void columns_operand(u32* r, u32 tile, int row, int d, int lane) { ldmatrix_t(r, place(tile, row + (((lane >> 3) & 1) << 3) + (lane & 7), d + (lane >> 4))); }
// A operand: rows [row, row + 16), chunk pair s.
DEV void a_operand(u32* r, u32 tile, int row, int s, int lane) { ldmatrix(r, place(tile, row + (lane & 15), s * 2 + (lane >> 4))); }

// The sequence and tile of this block; false when there is none. Tiles with most work come first: late queries, early keys.
DEV bool find_tile(const int* offsets, int sequences, int index, bool lateFirst, int& start, int& length, int& tile)
{
    for (int s = 0; s < sequences; s++)
    {
        start = offsets[s];
        length = offsets[s + 1] - start;
        int tiles = (length + TILE - 1) / TILE;
        if (index < tiles) { tile = lateFirst ? tiles - 1 - index : index; return true; }
        index -= tiles;
    }
    return false;
}

DEV bool visible(int query, int key, int length, int window) { return key <= query && query < length && (window <= 0 || key > query - window); }

// Accumulators of two 8-column tiles as the A operand of the next product.
DEV void as_operand(u32* a, const float* left, const float* right)
{
    a[0] = pack2(T(), left[0], left[1]); a[1] = pack2(T(), left[2], left[3]);
    a[2] = pack2(T(), right[0], right[1]); a[3] = pack2(T(), right[2], right[3]);
}
